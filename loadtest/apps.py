"""The load generator: `manage.py generate_load`."""

from django.apps import AppConfig


class LoadtestConfig(AppConfig):
    """Commands only; it has no tables."""

    name = "loadtest"
