"""What became of every event of a stack, when it has settled: `python -m devtools.testing.account`.

A process of its own, because the Django of the tests is bound to another database.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import django

from devtools.testing import zygote

__all__ = ["Account", "take_account"]


@dataclass(frozen=True, slots=True)
class Account:
    """Rows and verdicts; seconds from the question to the last effect.

    heard             committed events, each as often as a handler here subscribes to it
    simple_orders     committed events of the topic that `processed_events` is made from
    kafka_duplicates  messages that repeat an earlier event id: allowed, and dropped by receipts;
                      None where the log was not read
    """

    seconds: float
    orders: int
    events: int
    published: int
    heard: int
    applied: int
    processed_events: int
    simple_orders: int
    kafka_duplicates: int | None
    probe: dict[str, int]
    figures_different: int
    under_way: int

    def assert_whole(self) -> None:
        """Nothing lost, nothing twice, nothing out of order."""
        assert self.events == self.published, self
        assert self.heard == self.applied, self
        assert self.processed_events == self.simple_orders, self
        assert (self.figures_different, self.under_way) == (0, 0), self
        assert self.probe["drawn"] == self.probe["applied"], self
        assert [self.probe[name] for name in ("lost", "duplicates", "violations")] == [0] * 3, self


def take_account(
    environment: Mapping[str, str], *, within: float, read_log: bool = True
) -> Account:
    """Wait until the stack has settled, at most `within` seconds, and count.

    `read_log`: not after a broker has forgotten its log, of which the outbox still has offsets.
    """
    answer = zygote.run(
        *("-m", "devtools.testing.account", str(within), *["log"] * read_log),
        environment=environment,
        timeout=within + 60,
    )
    assert answer.returncode == 0, answer.stderr
    return Account(**json.loads(answer.stdout))


def main(within: float, *, read_log: bool) -> None:
    """Print the account as JSON."""
    django.setup()
    print(json.dumps(_account(within, read_log=read_log)))  # noqa: T201


def _account(within: float, *, read_log: bool) -> dict[str, Any]:
    from django.db import connection  # noqa: PLC0415  (needs the settings)

    from devtools.probe.queries import verdict  # noqa: PLC0415
    from devtools.testing import measure  # noqa: PLC0415
    from eventsite.reports.recount import compare  # noqa: PLC0415

    started = time.monotonic()
    settled = measure.settle(within)
    seconds = time.monotonic() - started
    found = compare()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM event_outbox WHERE topic = 'orders.created'")
        [simple_orders] = cursor.fetchone()
    return {
        "seconds": round(seconds, 1),
        **asdict(settled),
        "simple_orders": simple_orders,
        "kafka_duplicates": measure.count_in_kafka().duplicates if read_log else None,
        "probe": asdict(verdict()),
        "figures_different": found.different,
        "under_way": found.under_way,
    }


if __name__ == "__main__":
    main(float(sys.argv[1]), read_log="log" in sys.argv[2:])
