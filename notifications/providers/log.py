"""A provider that only writes a log line: for a stack without a real one."""

from __future__ import annotations

from typing import Any, ClassVar

import structlog

from notifications.providers import message as words
from notifications.providers.message import OutgoingText, ProviderAnswer

__all__ = ["Log"]

log = structlog.get_logger("notifications.provider")


class Log:
    """Writes one line for each message. Neither recipient nor text is in it: logs are kept."""

    Settings: ClassVar[type[words.Settings]] = words.Settings

    def __init__(self, name: str, settings: Any) -> None:
        del settings
        self.name = name

    async def send(self, message: OutgoingText, *, traceparent: str) -> ProviderAnswer:
        del traceparent
        log.info(
            "notification_sent",
            provider=self.name,
            notification_id=message.id,
            channel=message.channel,
            characters=len(message.content),
        )
        return ProviderAnswer(verdict=words.DELIVERED)

    async def close(self) -> None:
        """It holds nothing."""
