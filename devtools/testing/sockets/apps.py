from django.apps import AppConfig


class SocketsConfig(AppConfig):
    """See the package's docstring."""

    name = "devtools.testing.sockets"
    label = "sockets"
