"""Listens for nudges: Redis says that a log has more. What it loses, the readers' timers find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis
import structlog

from outbox import redis_client
from restapi.status_nudge import CHANNEL

__all__ = ["Nudges"]

AGAIN_AFTER = 1.0  # seconds
CONNECTS_WITHIN = 2.0
SILENT_SECONDS = 5.0  # then Redis is asked whether it is still there

log = structlog.get_logger("status_hub")


class Nudges:
    """Subscribed while somebody wants nudges, so that writers do not send what nobody hears.

    wanted  whether anybody does
    heard   called with the name of a log, and with "" when some may have been lost
    """

    def __init__(
        self, redis_url: str, *, wanted: Callable[[], bool], heard: Callable[[str], None]
    ) -> None:
        self._redis_url = redis_url
        self._wanted = wanted
        self._heard = heard
        self._wake = asyncio.Event()
        self._lost = False

    def wake(self) -> None:
        """Somebody wants nudges now."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._wake.clear()
            if not self._wanted():
                await self._wake.wait()
            try:
                await self._listen()
            except (redis.RedisError, OSError) as error:
                if not self._lost:
                    log.warning("status_nudges_lost", error=str(error) or type(error).__name__)
                self._lost = True
                await asyncio.sleep(AGAIN_AFTER)

    async def _listen(self) -> None:
        """While they are wanted. Raises RedisError."""
        client = redis_client.async_client(
            self._redis_url, answers_within=SILENT_SECONDS, connects_within=CONNECTS_WITHIN
        )
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                while self._wanted():
                    message = await subscription.get_message(timeout=SILENT_SECONDS)
                    if message is None:
                        await subscription.ping()
                    elif message["type"] == "message":
                        self._heard(message["data"].decode())
                    elif message["type"] == "subscribe":
                        self._note_subscribed()
        finally:
            await client.aclose()

    def _note_subscribed(self) -> None:
        if self._lost:
            log.info("status_nudges_back")
        self._lost = False
        self._heard("")
