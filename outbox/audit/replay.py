"""Replay: empties the tables of one handler and builds them again from the log (guarantees.md#r17).

Only from the log: republishing from the outbox would put old events behind newer ones of their key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from django.db import transaction
from django.utils.module_loading import import_string

from outbox import operator_log
from outbox.audit import watch
from outbox.bridge import unread
from outbox.database.ask import changed_by, rows_of
from outbox.database.planner import limit_lock_waits
from outbox.dead_letters import letters as letter_rows
from outbox.declaration import Route
from outbox.handlers import pause
from outbox.inbox.positions import EFFECT_WAIT, lock_all_positions, move_positions
from outbox.kafka.admin import TopicState
from outbox.models import BridgePosition, DeadLetter

__all__ = ["ReplayPlan", "ReplayRefused", "plan", "replay"]

REASON = "replay"


class ReplayRefused(RuntimeError):
    """The handler cannot be replayed so; nothing was changed."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The offset at which each partition starts, and the number of offsets from there to its end; an offset is
    a message or a marker of a transaction."""

    route: Route
    state: TopicState
    starts: Mapping[int, int]

    @property
    def messages(self) -> int:
        return sum(self.state.latest[number] - start for number, start in self.starts.items())


def plan(
    route: Route, state: TopicState, *, since: str | Mapping[int, int] = "start"
) -> ReplayPlan:
    """The plan of a replay.

    since: `start`, where the handler once began; `earliest`, everything that Kafka still holds; or
    offsets of single partitions, the others as with `start`. Raises ReplayRefused.
    """
    if not route.reset:
        raise ReplayRefused(
            f"Handler {route.handler} names no reset=: add the dotted path of a function that "
            "empties its tables to its Route in wiring.py."
        )
    began = _began(route, state)
    given = since if isinstance(since, Mapping) else {}
    if set(given) - set(began):
        raise ReplayRefused(
            f"--since names partitions {sorted(set(given) - set(began))}; {route.topic.name} has the "
            f"partitions {sorted(began)}."
        )
    starts = dict(state.earliest) if since == "earliest" else {**began, **given}
    if -1 in starts.values():
        raise ReplayRefused(
            f"{route.topic.name} was recreated since the handler began, so the older events are not in it and the tables cannot be rebuilt completely. --since earliest rebuilds them from the events that are left."
        )
    for number, start in starts.items():
        low, high = state.earliest[number], state.latest[number]
        if not low <= start <= high:
            raise ReplayRefused(
                f"{route.topic.name}[{number}] holds offsets {low} to {high}, not {start}: the tables cannot be rebuilt completely. --since earliest rebuilds them from the events that are left."
            )
    return ReplayPlan(route=route, state=state, starts=starts)


def _began(route: Route, state: TopicState) -> dict[int, int]:
    positions = BridgePosition.objects.filter(handler=route.handler, topic=route.topic.name)
    rows = positions.values_list("partition", "topic_id", "start_offset")
    lacking = set(state.latest) - {row[0] for row in rows}
    if lacking:
        raise ReplayRefused(
            f"The handler has no position on some partitions: run {unread.advice(route, lacking)} first."
        )
    if {row[1] for row in rows} != {state.topic_id}:
        raise ReplayRefused(
            f"{route.topic.name} was recreated: run manage.py sync_routes --recreated first."
        )
    return {row[0]: row[2] for row in rows if row[0] in state.latest}


def replay(wanted: ReplayPlan, *, by: str) -> int:
    """Delete the handler's rows and receipts, discard its open dead letters, move its positions back, and resume it.
    Returns the number of deleted receipts.

    The pause is committed first and taken back last: a replay that is killed leaves the handler
    paused, and is run again. A handler that was paused before stays so. Raises OperationalError if an
    effect holds a position for more than ten seconds."""
    handler = wanted.route.handler
    [status] = pause.handler_statuses([handler])
    paused_before = status.paused and status.reason != REASON
    if not status.paused:
        pause.pause_handler(handler, reason=REASON, by=by)
    receipts = _begin_anew(wanted, by)
    if not paused_before:
        pause.resume_handler(handler, by=by)
    return receipts


def _begin_anew(wanted: ReplayPlan, by: str) -> int:
    handler = wanted.route.handler
    empty = cast(Callable[[], None], import_string(wanted.route.reset))
    with transaction.atomic():
        limit_lock_waits(EFFECT_WAIT)
        lock_all_positions(handler)
        receipts = changed_by("DELETE FROM inbox_receipt WHERE handler = %s", (handler,))
        empty()
        watch.forget_handler(handler)
        letters = rows_of(
            "SELECT id FROM dead_letter WHERE handler = %s AND state < 3 ORDER BY id", (handler,)
        )
        ids = [letter_id for (letter_id,) in letters]
        letter_rows.resolve(ids, DeadLetter.State.DISCARDED, by=REASON, note="read again")
        move_positions(
            handler,
            wanted.route.topic.name,
            wanted.starts,
            also=', start_offset = target."offset", letters_open = false',
        )
        outcome = f"{receipts} receipts forgotten"
        operator_log.note("replay", f"handler {handler}", by=by, outcome=outcome)
    return receipts
