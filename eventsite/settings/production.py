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
    debug=env.debug,  # noqa: F405
    opens_the_api="api_keys_required" in env.model_fields_set and not env.api_keys_required,  # noqa: F405
):
    sys.exit("\n  ".join(["Production does not start with these settings:", *found]))
if env.admin_password == "admin":  # noqa: F405, S105
    ADMIN_PASSWORD = ""  # `ensure_admin` then asks for one instead of making admin / admin

OUTBOX_STRICT_SERVERS = True
API_KEYS_REQUIRED = True

SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
SESSION_COOKIE_AGE = 12 * 3600  # seconds: an operator logs in once a shift
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 365 * 24 * 3600  # of answers to https alone
# What `manage.py check --deploy` would have besides, and why it is not ours to say.
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # a redirect to https is the ingress's: probes and callers inside use http
    "security.W005",  # HSTS of subdomains, and
    "security.W021",  # the browsers' list: they bind sites that are not ours
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "CommonPasswordValidator")
] + [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    }
]

# The admin's files, from STATIC_ROOT; behind SecurityMiddleware, as WhiteNoise's manual wants it.
MIDDLEWARE.insert(  # noqa: F405
    MIDDLEWARE.index("django.middleware.security.SecurityMiddleware") + 1,  # noqa: F405
    "whitenoise.middleware.WhiteNoiseMiddleware",
)
