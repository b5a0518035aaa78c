"""Runs: a task replays or discards a group of dead letters, a few each second, without the operator's browser.

A run is a row of outbox/operator_log.py with what is still to be done. Beat starts the task every second. The
task does what is due by the run's rate and ends, so it does not delay its queue. A worker that is killed loses
nothing: the row says up to which letter the run came, and a letter that was resolved is not dead any more.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog
from django.db import transaction

from operations import relay_letters
from operations.action import ActionRequest
from operations.letters import GroupKey, members, members_of_app, source_named, standing
from operations.relay_letters import RelayGroup, belongs
from outbox import operator_log
from outbox.database import jobs
from outbox.database.ask import changed_by, rows_of
from outbox.dead_letters.resolve import REPLAY, Selection, resolve_letters
from outbox.declaration import LetterSource
from outbox.envelope import rfc3339
from outbox.models import DeadLetter

__all__ = ["begin_relay_run", "begin_run", "stop_run", "work"]

LOOKED_AT = 5_000  # dead letters of other groups that one second may skip
RELAY = "the relay"  # no handler's name
SHORT_AT_MOST = 3  # looks in a row at the relay's letters that find fewer than are due
WORK_SECONDS = 5.0  # for one task, whose time limit is 15
_OPEN = """
    SELECT id, what, by, why, run, extract(epoch FROM clock_timestamp())::float FROM operator_action
    WHERE ended_at IS NULL AND run IS NOT NULL ORDER BY id LIMIT 20
"""

log = structlog.get_logger("operations.runs")


class _Run(msgspec.Struct, kw_only=True):
    """What a run still has to do.

    after, upto  the letters between these two: numbers or, for an app, UUIDs as text; for the relay, times
    until        the rate is used up until this time of PostgreSQL, in seconds
    short        how often in a row fewer letters were found than were due
    """

    handler: str
    error: str
    upto: int | str
    rate: float
    after: int | str = 0
    until: float = 0.0
    short: int = 0


class _Open(NamedTuple):
    """A run that has not ended; `now` is the time of PostgreSQL, as in `until`."""

    id: int
    what: str
    by: str
    why: str
    run: _Run
    now: float


def begin_run(action: str, group: GroupKey, asked: ActionRequest) -> int:
    """Begin to replay or discard a group. Returns the id of the run's row. Raises DoneAlready for a form
    that was sent before."""
    found = standing(group)
    upto = group.upto if isinstance(group.upto, int) else str(group.upto)
    run = _Run(handler=group.handler, error=group.error, upto=upto, rate=asked.rate)
    error = f", {group.error.strip().splitlines()[0][:80]}" if group.error.strip() else ""
    return _begin(action, error, run, asked, found.letters if found.whole else None)


def begin_relay_run(action: str, group: RelayGroup, asked: ActionRequest) -> int:
    """The same for a group of the relay. Letters further back in the queue belong to it too, if they are
    older than the run."""
    upto = group.upto if group.whole else rfc3339(datetime.now(UTC))
    run = _Run(handler=RELAY, error=group.name, upto=upto, rate=asked.rate)
    letters = group.letters if group.whole else None
    return _begin(action, f", {group.name[:80]}", run, asked, letters)


def _begin(action: str, error: str, run: _Run, asked: ActionRequest, letters: int | None) -> int:
    of, by, why = f"dead letters of {run.handler}{error}", asked.by, asked.why
    plain = msgspec.to_builtins(run)
    return operator_log.begin(action, of, by=by, why=why, asked=letters, once=asked.once, run=plain)


def stop_run(entry_id: int, asked: ActionRequest) -> bool:
    """Stop a run: it takes no further letters. Returns whether it was under way."""
    by, why = asked.by, asked.why
    with transaction.atomic():
        if not operator_log.end(entry_id, f"stopped by {by}: {why}"):
            return False
        operator_log.note("stop", f"run {entry_id}", by=by, why=why, once=asked.once)
    return True


def work() -> int:
    """Do what is due for all runs. Returns the number of letters. While another call works, it does nothing."""
    if not _open():
        return 0
    letters = 0
    give_up = time.monotonic() + WORK_SECONDS
    with jobs.only_one("operator-runs") as mine:
        for each in _open() if mine else ():
            letters += _slice(each)
            if time.monotonic() > give_up:
                break
    return letters


def _open() -> list[_Open]:
    return [
        _Open(id_, what, by, why, msgspec.json.decode(run, type=_Run), now)
        for id_, what, by, why, run, now in rows_of(_OPEN)
    ]


def _slice(row: _Open) -> int:
    """Do about one second's letters of a run. Returns how many."""
    run = row.run
    # After a late task, up to two seconds' letters at once; never more, however long no task ran.
    run.until = max(run.until, row.now - 2.0) if run.until else row.now - 1.0
    due = int((row.now - run.until) * run.rate)
    if due < 1:
        return 0
    run.until += due / run.rate
    source = source_named(run.handler)
    if run.handler == RELAY:
        count, ended = _of_relay(row, due)
    elif source is None:
        count, ended = _of_handler(row, due)
    else:
        count, ended = _of_app(source, row, due)
    changed_by(
        "UPDATE operator_action SET run = %s::jsonb WHERE id = %s",
        (msgspec.json.encode(run).decode(), row.id),
    )
    if ended:
        operator_log.end(row.id)
        log.info("operator_run_ended", run=row.id, what=row.what, handler=run.handler, by=row.by)
    return count


def _of_handler(row: _Open, due: int) -> tuple[int, bool]:
    run = row.run
    group = GroupKey(handler=run.handler, error=run.error, upto=int(run.upto))
    some = members(group, after=int(run.after), limit=due, looked_at=LOOKED_AT)
    if some.ids:
        wanted = Selection(ids=some.ids, states=[DeadLetter.State.DEAD])
        outcomes = resolve_letters(
            row.what, wanted, by=row.by, limit=len(some.ids), note=row.why, run=row.id
        )
        deque(outcomes, maxlen=0)  # each batch counts itself
    run.after = some.last
    return len(some.ids), some.ended


def _of_app(source: LetterSource, row: _Open, due: int) -> tuple[int, bool]:
    run = row.run
    group = GroupKey(handler=run.handler, error=run.error, upto=UUID(str(run.upto)))
    after = UUID(str(run.after)) if run.after else None
    some = members_of_app(source, group, after=after, limit=due)
    if not some:
        return 0, True
    act = source.replay if row.what == REPLAY else source.discard
    changed = len(set(act([letter.id for letter in some], by=row.by)))
    operator_log.add(row.id, done=changed, skipped=len(some) - changed)
    run.after = str(some[-1].id)
    return len(some), False


def _of_relay(row: _Open, due: int) -> tuple[int, bool]:
    run = row.run
    try:
        count = relay_letters.take(row.what, belongs(run.error, str(run.upto)), limit=due)
    except relay_letters.Unavailable as error:
        log.warning("relay_letters_unavailable", run=row.id, error=str(error))
        operator_log.explain(row.id, f"waits: {error}")
        return 0, False
    operator_log.add(row.id, done=count)
    operator_log.explain(row.id, "")
    # Another reader of the queue holds letters while it looks, so this look may miss some.
    run.short = 0 if count == due else run.short + 1
    return count, run.short >= SHORT_AT_MOST
