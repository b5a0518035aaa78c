from django.apps import AppConfig


class TicksConfig(AppConfig):
    """See the package's docstring."""

    name = "devtools.testing.ticks"
    label = "ticks"
