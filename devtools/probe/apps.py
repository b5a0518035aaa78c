from django.apps import AppConfig


class ProbeConfig(AppConfig):
    """See the package's docstring."""

    name = "devtools.probe"
    label = "probe"
