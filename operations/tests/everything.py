"""A snapshot with something in every section, for tests of what page, terminal and JSON say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from django.conf import settings

from operations.judge import Judge
from operations.letters import LetterGroup
from operations.past import MinuteFigures, Past, Row
from operations.reading import Reading
from operations.snapshot import Snapshot
from operations.tests.well import PROCESSES, heard, judged, named, postgres, process, redis
from outbox.models import OperatorAction
from outbox.watching import Hop, TimeLeft

__all__ = ["everything"]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def an_entry(number: int, *, ended: bool) -> OperatorAction:
    return OperatorAction(
        id=number,
        at=NOON,
        by="ada",
        what="replay",
        subject=f"group {number}",
        why="mended",
        asked=40,
        done=12,
        skipped=3,
        ended_at=NOON if ended else None,
        outcome="",
    )


def everything() -> Snapshot:
    """Something in each section: an alarm, an app that cannot be read, a server that has been silent for long,
    dead letters, an action that is over and one under way, two versions, one process that is silent and one that is
    replaced, and a past."""
    rows = [
        Row(
            NOON + timedelta(minutes=minute),
            MinuteFigures(
                series={"pipeline/outbox#waits": 17.0 + minute},
                releases=("r", "r, build sha-2")[: minute + 1],
            ),
        )
        for minute in range(3)
    ]
    letters = [
        LetterGroup(handler="record_sales", error="no [such] row", letters=4, oldest=61.0, like="9")
    ]
    more = (
        named(process("web"), "web-2", build="sha-2"),
        process("web", age=20.0),
        named(process("worker", age=20.0), "worker-2"),
    )
    hops = [
        *postgres().hops,
        Hop(
            name="outbox",
            group="pipeline",
            waits=7,
            oldest=90.0,
            done=4,
            figures={"outbox_oldest_pending_seconds": 100.0},
            notes=("lanes paused by ada: [a] look",),
            times=(
                TimeLeft(name="retention", left=900.0, whole=1000.0, standing="old", ends="lost"),
            ),
        ),
    ]
    answers = heard(
        redis([*PROCESSES, *more]),
        postgres(
            hops=hops,
            failed={"notifications": "no such table"},
            letters=letters,
            actions=[an_entry(1, ended=True), an_entry(2, ended=False)],
            past=Past(rows=rows),
        ),
    )
    answers = replace(answers, kafka=Reading(since=0.0, error="Connection refused"))
    return judged(Judge(settings.WIRING.alarms), answers)
