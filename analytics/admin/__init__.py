"""The sales figures in Django's admin: each of them in a list, and all of them at a glance."""

from analytics.admin import figures, overview  # noqa: F401  (they register their pages)
