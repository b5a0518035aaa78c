"""For tools that want WSGI; the web process is eventsite.asgi."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")

application = get_wsgi_application()
