from django.apps import AppConfig


class CourierConfig(AppConfig):
    """See the package's docstring."""

    name = "devtools.upgrade.courier"
    label = "courier"
