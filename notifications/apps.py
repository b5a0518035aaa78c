from __future__ import annotations

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """Messages to people, by SMS, e-mail and push: accept, send, report."""

    name = "notifications"

    def ready(self) -> None:
        """Register the check of PROVIDERS."""
        from notifications.providers import checks  # noqa: F401
