"""The database backend of all our processes."""

from __future__ import annotations

import select
from types import SimpleNamespace
from typing import Any

import psycopg
from django.db.backends.postgresql import base

from eventsite.postgresql.connection import PatientConnection

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(base.DatabaseWrapper):
    """CONN_HEALTH_CHECKS asks `is_usable` before the first statement of each request and task.

    Django sends a query for it. But on a connection that is idle and well there is nothing to
    read; a server that has ended it has left its goodbye or a FIN in the socket."""

    # The driver, but for what it connects with.
    Database: Any = SimpleNamespace(**vars(psycopg) | {"connect": PatientConnection.connect})

    def is_usable(self) -> bool:
        if self.connection is None or self.connection.closed:
            return False
        # poll, for select knows no file above 1024, and a web process has one for each client
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return super().is_usable() if poll.poll(0) else True
