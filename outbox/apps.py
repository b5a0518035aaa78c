from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """The platform app: everything that moves events."""

    name = "outbox"
    verbose_name = "Event backbone"

    def ready(self) -> None:
        from outbox import checks  # noqa: F401  (registers the checks of the event map)
