"""The backbone in Django's admin. `readonly` is what every app's admin pages are made of."""

from outbox.admin import lanes, tables  # noqa: F401  (registers its pages)
