"""A provider, and senders of the test's own process that call it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings

from devtools.provider.client import ProviderProcess, provider_process
from notifications.delivery import sender, turns
from notifications.tests.sending import (
    fresh_redis,
    providers,
    senders,
    webhook,
)


@pytest.fixture(scope="module")
def running_provider() -> Iterator[ProviderProcess]:
    with provider_process() as running:
        yield running


@pytest.fixture
def provider(
    running_provider: ProviderProcess, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProviderProcess]:
    """One that takes everything, for all channels; nobody lingers."""
    fresh_redis()
    running_provider.rules()
    monkeypatch.setattr(settings, "RATE_LIMIT_PER_CHANNEL", 10_000)
    monkeypatch.setattr(sender, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(turns, "TURN_MS", 60_000)  # none ends by time, however slow the test is
    with providers(main=webhook(running_provider)), senders():
        yield running_provider
