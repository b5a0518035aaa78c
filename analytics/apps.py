from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    """Sales figures, made from order events alone."""

    name = "analytics"
