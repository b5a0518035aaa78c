from django.apps import AppConfig


class OperationsConfig(AppConfig):
    """The page of operators: the state of every hop, its reason, and the actions that help."""

    name = "operations"
