"""The providers that the setting PROVIDERS names, and who serves which channel in which order."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from django.conf import settings

from notifications.providers.log import Log
from notifications.providers.message import Provider, ProviderError, Settings
from notifications.providers.smtp import Smtp
from notifications.providers.webhook import Webhook

__all__ = ["KINDS", "breaker_name", "build", "in_order", "providers_of", "read_providers"]

# A new kind is a class (see `Provider`) and a line here.
KINDS: dict[str, type[Provider]] = {
    "webhook": Webhook,
    "smtp": Smtp,
    "log": Log,
}
NAME_LENGTH = 64  # of a column


@cache
def configured() -> dict[str, Settings]:
    """By name, in the order of the setting. Raises ProviderError."""
    return read_providers(settings.PROVIDERS, mail_domain=settings.MAIL_DOMAIN)


def read_providers(
    value: Mapping[str, Mapping[str, Any]], *, mail_domain: str
) -> dict[str, Settings]:
    """The settings of each provider, checked. Raises ProviderError, which names no secret."""
    found: dict[str, Settings] = {}
    for name, given in value.items():
        if not name or len(name) > NAME_LENGTH or not name.isprintable() or ":" in name:
            raise ProviderError(
                f"A provider's name must have 1 to {NAME_LENGTH} characters and no colon."
            )
        kind = KINDS.get(str(given.get("kind")))
        if kind is None:
            raise ProviderError(f"Provider {name!r}: kind must be one of {', '.join(KINDS)}.")
        filled = dict(given)
        if kind is Smtp:
            filled.setdefault("domain", mail_domain)
        try:
            found[name] = msgspec.convert(filled, type=kind.Settings)
        except msgspec.ValidationError as error:
            raise ProviderError(f"Provider {name!r}: {error}.") from error
    return found


def in_order(channel: str) -> list[tuple[str, Settings]]:
    """Who serves a channel; the next one is for when the breaker of the one before is open."""
    return [(name, each) for name, each in configured().items() if channel in each.channels]


def build(name: str) -> Provider:
    """A provider, for the event loop that runs."""
    found = configured()[name]
    return KINDS[found.kind](name, found)


def breaker_name(provider: str, channel: str) -> str:
    """Under which name a provider's breaker for a channel is kept."""
    return f"{provider}:{channel}"


def providers_of() -> list[tuple[str, str]]:
    """Every provider and channel that is served."""
    return [(name, channel) for name, each in configured().items() for channel in each.channels]
