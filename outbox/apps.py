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
    """One row a lane into the empty table, after the first migrate and after a flush.

    Never more rows: another number of lanes would move keys, so the drain refuses it (LaneMismatch).
    """
    from outbox.topics import LANES

    if "outbox_lane" in connections[using].introspection.table_names():
        with connections[using].cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_lane (lane) SELECT generate_series(0, %s) "
                "WHERE NOT EXISTS (SELECT FROM outbox_lane) ON CONFLICT DO NOTHING",
                (LANES - 1,),
            )
