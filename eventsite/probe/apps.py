from django.apps import AppConfig


class ProbeConfig(AppConfig):
    """See the package's docstring."""

    name = "eventsite.probe"
    label = "probe"
