from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from django.apps import AppConfig

from outbox.envelope import EventEnvelope


class ObedientConfig(AppConfig):
    """See the package's docstring."""

    name = "devtools.testing.obedient"
    label = "obedient"

    def ready(self) -> None:
        from devtools.probe import services

        append = services.append_entries
        orders = Path(os.environ["PROBE_ORDERS"])

        def append_entries(envelopes: Sequence[EventEnvelope]) -> None:
            for envelope in envelopes:
                _obey(orders / envelope.key)
            append(envelopes)

        services.append_entries = append_entries


def _obey(order: Path) -> None:
    if not order.exists():
        return
    with order.with_suffix(".seen").open("a") as seen:
        seen.write(".")
    match order.read_text():
        case "raise":
            raise ValueError("poison by order")
        case "exit":
            os._exit(1)
        case "hang":
            time.sleep(3600)
