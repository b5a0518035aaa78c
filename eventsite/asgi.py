"""The web process: the gateway around all HTTP, hot paths next, Django inside."""

import os
import sys

import django
import structlog
from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402

from eventsite.gateway.asgi_types import Receive, Scope, Send  # noqa: E402
from eventsite.gateway.django_app import DjangoApplication, middleware_headers  # noqa: E402
from eventsite.gateway.lifespan import Lifespan  # noqa: E402
from eventsite.gateway.wiring import gateway_around  # noqa: E402
from eventsite.health import ALIVE  # noqa: E402
from eventsite.hot_paths.layer import HotPaths  # noqa: E402
from eventsite.tracing import stop_in_background  # noqa: E402
from eventsite.web_server import forget_the_dead, leave, watch_parent  # noqa: E402
from orders.api.commands import PLACE_ORDER  # noqa: E402
from orders.api.hot_reads import LIST_ORDERS, READ_ORDER  # noqa: E402
from outbox.collector import calm_down  # noqa: E402

# Answered before Django; docs/hot-paths.md says how to add one.
HOT_PATHS = (PLACE_ORDER, READ_ORDER, LIST_ORDERS, ALIVE)

log = structlog.get_logger("gateway")
hot_paths = HotPaths(
    DjangoApplication(threads=settings.WEB_THREADS),
    HOT_PATHS if settings.HOT_PATHS else (),
    headers=middleware_headers(),
)
gateway = gateway_around(hot_paths)


async def no_websockets(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing here talks by WebSocket: a handshake is a 403, and a line in the log."""
    log.info("websocket_refused", path=scope["path"])
    await receive()
    await send({"type": "websocket.close"})


application = ProtocolTypeRouter(
    {
        "http": gateway.application,
        "websocket": no_websockets,
        "lifespan": Lifespan(
            at_start=[gateway.start, watch_parent, forget_the_dead],
            at_end=[leave, hot_paths.close, gateway.close, stop_in_background],
        ),
    }
)
calm_down()
# The event loop should not wait long for the interpreter's lock when a thread of Django's has it:
# 5 ms, Python's default, is more than most answers take.
sys.setswitchinterval(0.0003)
