"""The writer: the probe's keyed events through real transactions, from a process of its own.

`python -m devtools.chaos.load '{"prefix": …, "rate": …, "log": …}'` writes until SIGTERM and
keeps a line of JSON for every attempt: its outcome and its events. It sees cut connections as any
writer would, and its log records what it was promised.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import django
import msgspec

from devtools.chaos.history import WrittenEvent
from devtools.chaos.outcome import WriteOutcome
from devtools.probe.events import PROBE_TOPIC
from outbox.topics import Topic

__all__ = ["ProbeEvent", "WriteAttempt", "WriterPlan", "command", "read_log", "write"]

HOT_KEYS = 8
COLD_KEYS = 1000
KEYS_A_TRANSACTION = 3
ROLLED_BACK_SHARE = 0.1


class ProbeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The probe's event with what chaos needs: how it misbehaves, and padding that makes it large."""

    topic: ClassVar[Topic] = PROBE_TOPIC
    source: ClassVar[str] = "/chaos"
    type: ClassVar[str] = "SEQUENCE_DRAWN"

    event_id: str
    key: str
    seq: int
    mode: str = ""
    padding: str = ""

    def to_json(self) -> str:
        """The message's value; the probe's decoder passes over the two fields it does not know."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class WriteAttempt:
    """One transaction: the outcome that the writer saw, and when (seconds since the epoch)."""

    outcome: WriteOutcome
    events: Sequence[ProbeEvent]
    at: float
    error: str = ""

    def written(self) -> list[WrittenEvent]:
        """Its events as the checker wants them."""
        return [WrittenEvent(e.event_id, e.key, e.seq, self.outcome, self.at) for e in self.events]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterPlan:
    """`rate` events a second to keys that begin with `prefix`, for at most `seconds`."""

    prefix: str
    log: str
    rate: float = 150.0
    seconds: float = 1800.0
    seed: int = 1


class _RollBack(Exception):
    pass


def write(
    keys: Sequence[str],
    *,
    modes: Sequence[str] = (),
    paddings: Sequence[str] = (),
    commit: bool = True,
) -> WriteAttempt:
    """Draw the next number of each key (a key may come several times) and publish, in one
    transaction; never raises for a database that is unavailable or gone in the middle."""
    from django.db import connection  # noqa: PLC0415  (needs the settings)

    from outbox.database.unit_of_work import NotStored, OutcomeUnknown, unit_of_work  # noqa: PLC0415
    from outbox.publish.events import publish  # noqa: PLC0415

    events: list[ProbeEvent] = []
    outcome, problem = WriteOutcome.COMMITTED, ""
    try:
        with unit_of_work():
            events = _drawn(keys, modes, paddings)
            publish(events)
            if not commit:
                raise _RollBack
    except _RollBack:
        outcome = WriteOutcome.ROLLED_BACK
    except NotStored as error:
        outcome = WriteOutcome.NOT_STORED if commit else WriteOutcome.ROLLED_BACK
        problem = str(error)
    except OutcomeUnknown as error:
        outcome, problem = WriteOutcome.UNKNOWN, str(error)
    if problem:
        connection.close()
    return WriteAttempt(outcome, events, time.time(), problem)


def _drawn(keys: Sequence[str], modes: Sequence[str], paddings: Sequence[str]) -> list[ProbeEvent]:
    """An event of each key, with its next number."""
    nothing = [""] * len(keys)
    each = zip(keys, _next_numbers(keys), modes or nothing, paddings or nothing, strict=True)
    return [
        ProbeEvent(event_id=str(uuid4()), key=key, seq=seq, mode=mode, padding=padding)
        for key, seq, mode, padding in each
    ]


def _next_numbers(keys: Sequence[str]) -> list[int]:
    """The next number of each key, drawn in the open transaction, in the order of the keys."""
    from outbox.database.ask import rows_of  # noqa: PLC0415  (needs the settings)

    drawn = sorted(Counter(keys).items())
    last = rows_of(
        """
        INSERT INTO probe_sequence (key, seq)
        SELECT key, n FROM unnest(%s::text[], %s::bigint[]) AS wanted (key, n) ORDER BY key
        ON CONFLICT (key) DO UPDATE SET seq = probe_sequence.seq + EXCLUDED.seq
        RETURNING key, seq
        """,
        ([key for key, _ in drawn], [number for _, number in drawn]),
    )
    numbers = {key: itertools.count(seq - dict(drawn)[key] + 1) for key, seq in last}
    return [next(numbers[key]) for key in keys]


def read_log(path: Path) -> Iterator[WriteAttempt]:
    """The attempts of a writer; a last line that was cut off is left out."""
    for line in path.read_text().splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        events = [msgspec.convert(event, ProbeEvent) for event in found["events"]]
        yield WriteAttempt(WriteOutcome(found["outcome"]), events, found["at"], found["error"])


def _run(plan: WriterPlan, stop: threading.Event) -> None:
    chooser = random.Random(plan.seed)  # noqa: S311  (a repeatable choice, not a secret)
    begin = time.monotonic()
    interval = KEYS_A_TRANSACTION / plan.rate
    due = begin
    with Path(plan.log).open("w", buffering=1) as log:
        while not stop.is_set() and time.monotonic() < begin + plan.seconds:
            hot = chooser.sample(range(HOT_KEYS), KEYS_A_TRANSACTION - 1)
            keys = [f"{plan.prefix}hot-{number}" for number in hot]
            keys.append(f"{plan.prefix}cold-{chooser.randrange(COLD_KEYS)}")
            attempt = write(keys, commit=chooser.random() >= ROLLED_BACK_SHARE)
            log.write(
                json.dumps(
                    {
                        "outcome": attempt.outcome,
                        "at": attempt.at,
                        "error": attempt.error,
                        "events": [msgspec.to_builtins(event) for event in attempt.events],
                    }
                )
                + "\n"
            )
            # A load that fell behind does not make up for it: nobody needs the burst.
            due = max(due + interval, time.monotonic() - 1.0)
            stop.wait(max(0.05 if attempt.error else 0.0, due - time.monotonic()))


def main(arguments: str) -> None:
    """Write until SIGTERM."""
    django.setup()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _run(WriterPlan(**json.loads(arguments)), stop)


def command(plan: WriterPlan) -> tuple[str, ...]:
    """How to start a writer."""
    return (sys.executable, "-m", "devtools.chaos.load", json.dumps(asdict(plan)))


if __name__ == "__main__":
    main(sys.argv[1])
