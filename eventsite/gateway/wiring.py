"""The gateway as the settings want it."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from eventsite.gateway.asgi_types import Application
from eventsite.gateway.django_app import middleware_headers
from eventsite.gateway.journal import Journal
from eventsite.gateway.keyring import Keyring
from eventsite.gateway.layer import Gateway, Rules
from eventsite.gateway.rate_limit import RateLimit, RateLimiter

__all__ = ["Assembled", "gateway_around"]


@dataclass(frozen=True, slots=True)
class Assembled:
    """The layer, and what must be started before it and closed after it."""

    application: Gateway
    keyring: Keyring
    limiter: RateLimiter | None
    journal: Journal

    async def start(self) -> None:
        if self.limiter is not None:
            await self.limiter.start()

    async def close(self) -> None:
        self.journal.close()
        await self.keyring.close()
        if self.limiter is not None:
            await self.limiter.close()


def gateway_around(application: Application) -> Assembled:
    """Raises ValueError when RATE_LIMIT cannot be read."""
    limiter = None
    if settings.RATE_LIMIT:
        limiter = RateLimiter(
            RateLimit.parse(settings.RATE_LIMIT),
            settings.REDIS_URL,
            patience=settings.RATE_LIMIT_PATIENCE,
        )
    keyring = Keyring()
    journal = Journal(service=settings.SERVICE_NAME, level=settings.LOG_LEVEL)
    gateway = Gateway(
        application,
        rules=Rules(
            keys_required=settings.API_KEYS_REQUIRED,
            trusted_proxies=settings.TRUSTED_PROXIES,
            max_body_bytes=settings.MAX_BODY_BYTES,
            headers=middleware_headers(),
            traced=bool(settings.TRACES_ENDPOINT),
        ),
        keyring=keyring,
        limiter=limiter,
        journal=journal,
    )
    return Assembled(gateway, keyring, limiter, journal)
