"""Production: nothing is open by default, and what is missing stops the start."""

from django.core.exceptions import ImproperlyConfigured

from eventsite.settings.base import *  # noqa: F403

if len(SECRET_KEY) < 32:  # noqa: F405
    raise ImproperlyConfigured("Set DJANGO_SECRET_KEY to at least 32 random characters.")
if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:  # noqa: F405
    raise ImproperlyConfigured("Set ALLOWED_HOSTS to the host names you serve; '*' is refused.")
if "probe" in [app.rpartition(".")[2] for app in INSTALLED_APPS]:  # noqa: F405
    raise ImproperlyConfigured("PROBE is for the demo, chaos and benchmarks: unset it.")
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
