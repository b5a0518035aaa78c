"""The bridges with a fault: they wait for an answer of PostgreSQL for longer than any watchdog has patience.

`python -m devtools.testing.patient_bridge`
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import django
from django.core.management import call_command

__all__: list[str] = []

ANSWER_SECONDS = 600.0


def main() -> None:
    """Run `manage.py run_bridge`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
    django.setup()

    from outbox.bridge.bridge import Bridge  # noqa: PLC0415  (the apps must be loaded)
    from outbox.conf import BRIDGE  # noqa: PLC0415
    from outbox.management.commands import run_bridge  # noqa: PLC0415

    patient = partial(Bridge, policy=replace(BRIDGE, database_wait=ANSWER_SECONDS))
    setattr(run_bridge, "Bridge", patient)  # noqa: B010
    call_command("run_bridge")


if __name__ == "__main__":
    main()
