"""The subscriptions of all installed apps, which bridge, checks and commands read.

Each app declares its own in its wiring.py; `manage.py wiring` prints them all.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from outbox.declaration import Route
from outbox.topics import Topic

__all__ = ["FOR_OTHERS", "PUBLISHES", "ROUTES"]

ROUTES: tuple[Route, ...] = settings.WIRING.routes
FOR_OTHERS: tuple[Topic, ...] = settings.WIRING.for_others
PUBLISHES: tuple[type[Any], ...] = settings.WIRING.publishes
