from django.apps import AppConfig


class RestapiConfig(AppConfig):
    """What every endpoint shares."""

    name = "restapi"
    verbose_name = "HTTP API"
