"""A system check: what PROVIDERS says, before the first message is to be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from notifications.providers.configured import read_providers
from notifications.providers.message import ProviderError

__all__ = ["check_providers"]


@register("notifications")
def check_providers(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Each provider can be made, and each channel has one."""
    try:
        found = read_providers(settings.PROVIDERS, mail_domain=settings.MAIL_DOMAIN)
    except ProviderError as error:
        return [Error(str(error), hint="docs/notifications.md#providers", id="notifications.E001")]
    served = {channel for each in found.values() for channel in each.channels}
    missing = {"sms", "email", "push"} - served
    if missing:
        return [
            CheckWarning(
                f"No provider serves {', '.join(sorted(missing))}: such notifications wait.",
                hint="docs/notifications.md#providers",
                id="notifications.W001",
            )
        ]
    return []
