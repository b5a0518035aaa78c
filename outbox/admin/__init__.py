"""The backbone in Django's admin. `readonly` is what every app's admin pages are made of."""

from outbox.admin import dead_letters, lanes, tables  # noqa: F401  (they register their pages)
