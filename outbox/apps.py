from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class OutboxConfig(AppConfig):
    """The platform app: everything that moves events."""

    name = "outbox"
    verbose_name = "Event backbone"

    def ready(self) -> None:
        from outbox import checks  # noqa: F401  (registers the checks of the event map)

        post_migrate.connect(_create_lanes, sender=self)


def _create_lanes(using: str, **kwargs: Any) -> None:
    """One row a lane, after migrations and after a flush: without its row a lane is never drained."""
    from outbox.topics import LANES

    if "outbox_lane" in connections[using].introspection.table_names():
        with connections[using].cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_lane (lane) SELECT generate_series(0, %s) ON CONFLICT DO NOTHING",
                (LANES - 1,),
            )
