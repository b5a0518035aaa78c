"""The gateway as the settings want it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import path, re_path
from django.utils.module_loading import import_string

from eventsite.telemetry.logs import console_line
from eventsite.web.gateway.access_log import AccessLog
from eventsite.web.gateway.asgi_types import Application
from eventsite.web.gateway.django_app import middleware_headers
from eventsite.web.gateway.keyring import Keyring
from eventsite.web.gateway.layer import Gateway, Parts, Rules
from eventsite.web.gateway.open_sockets import OpenSockets
from eventsite.web.gateway.rate_limit import RateLimit, RateLimiter
from eventsite.web.gateway.routes import UNKNOWN
from eventsite.web.gateway.sockets import SocketEndpoint
from restapi.declaration import Socket

__all__ = ["Assembled", "gateway_around"]


@dataclass(frozen=True, slots=True)
class Assembled:
    """The layer around HTTP and that around WebSockets, and what must be started before them and
    closed after them."""

    application: Gateway
    websockets: Application
    sockets: OpenSockets
    parts: Parts

    async def start(self) -> None:
        if self.parts.limiter is not None:
            await self.parts.limiter.start()

    async def close(self) -> None:
        self.parts.access_log.close()
        await self.sockets.close()
        await self.parts.keyring.close()
        if self.parts.limiter is not None:
            await self.parts.limiter.close()


def gateway_around(application: Application) -> Assembled:
    """Raises ValueError when RATE_LIMIT cannot be read."""
    limiter = None
    if settings.RATE_LIMIT:
        limiter = RateLimiter(
            RateLimit.parse(settings.RATE_LIMIT),
            settings.REDIS_URL,
            patience=settings.RATE_LIMIT_PATIENCE,
        )
    access_log = AccessLog(
        service=settings.SERVICE_NAME,
        level=settings.LOG_LEVEL,
        console=console_line if settings.LOG_FORMAT == "console" else None,
    )
    rules = Rules(
        keys_required=settings.API_KEYS_REQUIRED,
        trusted_proxies=settings.TRUSTED_PROXIES,
        max_body_bytes=settings.MAX_BODY_BYTES,
        headers=middleware_headers(),
        traced=bool(settings.TRACES_ENDPOINT),
        hosts=settings.ALLOWED_HOSTS,
        origins=settings.WEBSOCKET_ORIGINS,
    )
    parts = Parts(rules=rules, keyring=Keyring(), limiter=limiter, access_log=access_log)
    sockets = OpenSockets(
        parts.keyring,
        at_most=settings.WEBSOCKETS_PER_CALLER,
        send_seconds=settings.WEBSOCKET_SEND_SECONDS,
    )
    websockets = websockets_of(parts, sockets, settings.WIRING.sockets)
    return Assembled(Gateway(application, parts), websockets, sockets, parts)


def websockets_of(parts: Parts, sockets: OpenSockets, declared: Iterable[Socket]) -> Application:
    """The consumers that the apps declare, each in the gateway; a path of none of them is a 404."""
    routes = []
    for socket in declared:
        consumer = _consumer(socket.consumer)
        endpoint: Any = SocketEndpoint(parts, sockets, socket.path, consumer, socket.takes)
        routes.append(path(socket.path.pattern, endpoint))
    unknown: Any = SocketEndpoint(parts, sockets, UNKNOWN, None)
    router: Application = URLRouter([*routes, re_path("", unknown)])
    return router


def _consumer(dotted: str) -> Application:
    """A synchronous consumer takes a thread for each message, of a pool that Django's own code
    waits for."""
    consumer = import_string(dotted)
    if not issubclass(consumer, AsyncConsumer) or issubclass(consumer, SyncConsumer):
        raise TypeError(f"{dotted} is not an asynchronous consumer of Channels.")
    application: Application = consumer.as_asgi()
    return application
