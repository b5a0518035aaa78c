"""Processes under chaos: the local stack's settings and an app that misbehaves on demand.

No hook of it is in production code: everything is patched from outside when this app starts.
"""

from __future__ import annotations

import os

from eventsite.settings.local import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "chaos"]  # noqa: F405
# Where switches and barriers are files, and which guard of mutants.py is broken, if any.
CHAOS_DIRECTORY = os.environ.get("CHAOS_DIRECTORY", "/nonexistent")
CHAOS_MUTANTS = [name for name in os.environ.get("CHAOS_MUTANTS", "").split(",") if name]
CHAOS_SECOND_HANDLER = os.environ.get("CHAOS_SECOND_HANDLER", "")
OUTBOX_EVENT_MAP = "chaos.event_map.ROUTES"

if "idle-timeout-off" in CHAOS_MUTANTS:
    DATABASES["default"]["OPTIONS"]["options"] = "-c lock_timeout=5000"  # noqa: F405
