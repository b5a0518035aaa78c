"""The web process: the gateway around all HTTP, Django inside."""

import os

import django
from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402

from eventsite.gateway.django_app import DjangoApplication  # noqa: E402
from eventsite.gateway.layer import Gateway  # noqa: E402
from eventsite.gateway.lifespan import lifespan  # noqa: E402

application = ProtocolTypeRouter(
    {"http": Gateway(DjangoApplication(threads=settings.WEB_THREADS)), "lifespan": lifespan}
)
