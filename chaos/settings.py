"""Processes under chaos: the local stack's settings and an app that misbehaves on demand.

No hook of it is in production code: everything is patched from outside when this app starts.
"""

from __future__ import annotations

from chaos import clock
from chaos.environment import mutants
from eventsite.settings.local import *  # noqa: F403

clock.shift()

# First: what it wraps must not have been taken by a task before.
INSTALLED_APPS = ["chaos", *INSTALLED_APPS]  # noqa: F405
OUTBOX_EVENT_MAP = "chaos.event_map.ROUTES"

if "idle-timeout-off" in mutants():
    DATABASES["default"]["OPTIONS"]["options"] = "-c lock_timeout=5000"  # noqa: F405
