"""Production: nothing is open by default, and what is missing stops the start."""

import sys

from eventsite.settings.base import *  # noqa: F403
from eventsite.settings.refusals import refusals

# At the end of this process rather than an exception: every program that reads settings would
# show that one with a traceback, Celery's and Django's alike.
if found := refusals(
    secret_key=SECRET_KEY,  # noqa: F405
    allowed_hosts=ALLOWED_HOSTS,  # noqa: F405
    csrf_trusted_origins=CSRF_TRUSTED_ORIGINS,  # noqa: F405
    websocket_origins=WEBSOCKET_ORIGINS,  # noqa: F405
    sends=bool(env.providers or env.webhook_url),  # noqa: F405
    ops_token=OPS_TOKEN,  # noqa: F405
):
    sys.exit("\n  ".join(["These settings do not start in production:", *found]))
if env.admin_password == "admin":  # noqa: F405, S105
    ADMIN_PASSWORD = ""  # `ensure_admin` then asks for one instead of making admin / admin

OUTBOX_STRICT_SERVERS = True
API_KEYS_REQUIRED = True

SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# The admin's files, from STATIC_ROOT; behind SecurityMiddleware, as WhiteNoise's manual wants it.
MIDDLEWARE.insert(  # noqa: F405
    MIDDLEWARE.index("django.middleware.security.SecurityMiddleware") + 1,  # noqa: F405
    "whitenoise.middleware.WhiteNoiseMiddleware",
)
