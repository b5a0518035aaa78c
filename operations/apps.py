from django.apps import AppConfig


class OperationsConfig(AppConfig):
    """The page of operators: how everything stands, why, and what to press."""

    name = "operations"
