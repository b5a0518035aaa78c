"""The local stack and development: open, loopback only."""

from eventsite.settings.base import *  # noqa: F403

SECRET_KEY = SECRET_KEY or "local-stack-only-not-a-secret"  # noqa: F405
ALLOWED_HOSTS = ["*"]
SERVE_STATIC = True
