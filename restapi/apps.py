from django.apps import AppConfig


class RestapiConfig(AppConfig):
    """What every endpoint shares."""

    name = "restapi"
    verbose_name = "HTTP API"

    def ready(self) -> None:
        from django.urls import register_converter

        from restapi.converters import AnyText

        register_converter(AnyText, "text")
