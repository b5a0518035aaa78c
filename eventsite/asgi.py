"""The web process: the gateway around all HTTP, Django inside."""

import os
from typing import cast

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
# Requests run on many threads: they share a few connections instead of owning one each.
os.environ.setdefault("DATABASE_POOL_SIZE", "8")

django_application = get_asgi_application()

from eventsite.gateway.layer import Application, Gateway  # noqa: E402

application = ProtocolTypeRouter({"http": Gateway(cast(Application, django_application))})
