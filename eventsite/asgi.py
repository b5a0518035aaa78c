"""The web process: the gateway around all HTTP and WebSockets, hot paths next, Django inside."""

import os
import sys

import django
from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

from eventsite.telemetry.tracing import stop_in_background  # noqa: E402
from eventsite.web.gateway.django_app import DjangoApplication, middleware_headers  # noqa: E402
from eventsite.web.gateway.lifespan import lifespan  # noqa: E402
from eventsite.web.gateway.wiring import gateway_around  # noqa: E402
from eventsite.web.hot_paths.layer import HotPaths  # noqa: E402
from eventsite.web.server import forget_the_dead, leave, watch_parent  # noqa: E402
from eventsite.web.status_hub.hub import Hub  # noqa: E402
from outbox.process.gc_tuning import tune_gc  # noqa: E402
from outbox.process.heartbeat import Heartbeat  # noqa: E402

# Answered before Django, as the apps declare it; docs/http.md says how to add one.
HOT_PATHS = tuple(map(import_string, settings.WIRING.hot_paths))

hot_paths = HotPaths(
    DjangoApplication(threads=settings.WEB_THREADS),
    HOT_PATHS if settings.HOT_PATHS else (),
    headers=middleware_headers(),
    sessions=settings.HOT_PATH_SESSIONS,
)
gateway = gateway_around(hot_paths)
status_hub = Hub(tuple(map(import_string, settings.WIRING.status_logs)), settings.REDIS_URL)


async def begin_heartbeat() -> None:
    """In the process that serves: the one that imports this may have forked it."""
    Heartbeat("web").start()


application = ProtocolTypeRouter(
    {
        "http": gateway.application,
        "websocket": status_hub.around(gateway.websockets),
        "lifespan": lifespan(
            at_start=[
                gateway.start,
                status_hub.start,
                watch_parent,
                forget_the_dead,
                begin_heartbeat,
            ],
            at_end=[leave, hot_paths.close, status_hub.close, gateway.close, stop_in_background],
        ),
    }
)
tune_gc()
# The event loop should not wait long for the interpreter's lock when a thread of Django's has it:
# 5 ms, Python's default, is more than most answers take.
sys.setswitchinterval(0.0003)
