"""Draws the probe's numbers until SIGTERM: `python -m devtools.testing.probe_load`.

A process of its own, because it writes into the database of a stack, not into the tests' one.
"""

from __future__ import annotations

import itertools
import time

import django

INTERVAL = 0.05


def main() -> None:
    """A number that was not stored is drawn again later, an unknown one is in the sequence or not."""
    django.setup()
    from django.db import close_old_connections  # noqa: PLC0415  (needs the settings)

    from devtools.probe.services import draw  # noqa: PLC0415
    from outbox.database.unit_of_work import NotStored, OutcomeUnknown  # noqa: PLC0415

    for number in itertools.count():
        try:
            draw(["hot", f"cold-{number % 20}"])
        except (NotStored, OutcomeUnknown):
            close_old_connections()
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
