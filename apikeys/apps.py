from django.apps import AppConfig


class ApikeysConfig(AppConfig):
    """API keys: made, rotated, revoked; checked by the gateway."""

    name = "apikeys"
    verbose_name = "API keys"
