"""The web process: the gateway around all HTTP, hot paths next, Django inside."""

import os

import django
from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402

from eventsite.gateway.django_app import DjangoApplication, middleware_headers  # noqa: E402
from eventsite.gateway.layer import Gateway  # noqa: E402
from eventsite.gateway.lifespan import Lifespan  # noqa: E402
from eventsite.health import ALIVE  # noqa: E402
from eventsite.hot_paths.layer import HotPaths  # noqa: E402
from orders.api.commands import PLACE_ORDER  # noqa: E402
from orders.api.hot_reads import LIST_ORDERS, READ_ORDER  # noqa: E402

# Answered before Django; docs/hot-paths.md says how to add one.
HOT_PATHS = (PLACE_ORDER, READ_ORDER, LIST_ORDERS, ALIVE)

hot_paths = HotPaths(
    DjangoApplication(threads=settings.WEB_THREADS),
    HOT_PATHS if settings.HOT_PATHS else (),
    headers=middleware_headers(),
)
application = ProtocolTypeRouter(
    {"http": Gateway(hot_paths), "lifespan": Lifespan(at_end=hot_paths.close)}
)
