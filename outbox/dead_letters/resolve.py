"""The actions of operators on dead letters: find, inspect, replay, discard.

Handlers' letters are resolved under the lock of their position, the drain's under that of their
lane."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.models import QuerySet

from outbox import conf, operator_log
from outbox.conf import DRAIN_HANDLER, REDRIVE
from outbox.database.ask import row_of, rows_of
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters import redrive, refused
from outbox.dead_letters.letter import Letter
from outbox.envelope import from_column, to_column
from outbox.inbox import positions, receipts
from outbox.lanes.lock import LANE_WAIT, lock_lanes
from outbox.models import DeadLetter, DeadLetterAction, InboxReceipt
from outbox.topics import lane_of

__all__ = [
    "DISCARD",
    "REPLAY",
    "FollowersWithoutHead",
    "Resolved",
    "Selection",
    "preview",
    "resolve_letters",
    "select",
]

REPLAY = "replay"
DISCARD = "discard"
_NAMED = 5  # ids in an error message
_BATCH = 200  # letters that are resolved under one lock of their position

State = DeadLetter.State


class FollowersWithoutHead(ValueError):
    """Some of the letters follow a head of their key that is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which open letters; all fields together. `since`: parked at or after. `error`: text within."""

    ids: Sequence[int] = ()
    topic: str = ""
    handler: str = ""
    key: str | None = None
    error: str = ""
    since: datetime | None = None
    states: Sequence[int] = field(default=(State.RETRYING, State.PARKED, State.DEAD))


@dataclass(frozen=True, slots=True)
class Resolved:
    """The outcome for one letter: `done`, or the reason why not."""

    letter: DeadLetter
    done: bool
    word: str


def select(wanted: Selection) -> QuerySet[DeadLetter]:
    """The selected letters, oldest first."""
    rows = DeadLetter.objects.filter(state__in=list(wanted.states)).order_by("id")
    if wanted.key is not None:
        rows = rows.filter(key=to_column(wanted.key))
    asked = {
        "id__in": list(wanted.ids),
        "topic": wanted.topic,
        "handler": wanted.handler,
        "error__contains": wanted.error,
        "created_at__gte": wanted.since,
    }
    return rows.filter(**{name: value for name, value in asked.items() if value})


def preview(wanted: Selection, *, limit: int) -> tuple[list[DeadLetter], int]:
    """The first `limit` letters to resolve, and how many followers of theirs go on afterwards
    beside them, counted up to 10,000. Raises FollowersWithoutHead."""
    letters = list(select(wanted)[:limit])
    _refuse_headless(letters)
    return letters, _followers_beside(letters)


def resolve_letters(
    action: str,
    wanted: Selection,
    *,
    by: str,
    limit: int,
    rate: float = 0.0,
    note: str = "",
    run: int | None = None,
    once: UUID | None = None,
) -> Iterator[Resolved]:
    """Replay or discard, a batch of one partition a transaction; with a `rate` one letter, at most so
    many a second.

    Yields the outcome of each. After an interruption it can be started again: letters that are
    done are no longer selected, or are skipped. It counts its progress in a row of
    operator_log: its own, or `run`, which the caller begins and ends. Raises
    FollowersWithoutHead before anything is done, and DoneAlready for a form that was sent
    before."""
    letters, _ = preview(wanted, limit=limit)
    if not letters:
        return
    own = run is None
    if run is None:
        named = _named(letters)
        run = operator_log.begin(action, named, by=by, why=note, asked=len(letters), once=once)
    try:
        yield from _resolve_all(action, letters, by=by, rate=rate, note=note, run=run)
    finally:
        if own:
            with suppress(DatabaseError, InterfaceError):
                operator_log.end(run)


def _named(letters: Sequence[DeadLetter]) -> str:
    handlers = sorted({letter.handler for letter in letters})
    if len(letters) == 1:
        return f"dead letter {letters[0].id} of {handlers[0]}"
    return f"dead letters of {', '.join(handlers)}"


def _resolve_all(
    action: str, letters: list[DeadLetter], *, by: str, rate: float, note: str, run: int
) -> Iterator[Resolved]:
    if action == DISCARD:
        letters.reverse()  # the head last: a follower it sets free could be applied before its turn
    started = time.monotonic()
    for number, batch in enumerate(_batches(letters, size=1 if rate else _BATCH)):
        if rate:
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
        try:
            words = _resolve(action, batch, by, note, run)
        except OperationalError as error:
            word = f"not done, try again: {str(error).strip()}"
            with suppress(DatabaseError, InterfaceError):
                operator_log.add(run, skipped=len(batch))
            yield from (Resolved(letter, False, word) for letter in batch)
            continue
        for letter in batch:
            word = words[letter.id]
            yield Resolved(letter, not word, word or f"{action}ed")


def _batches(letters: Sequence[DeadLetter], *, size: int) -> Iterator[list[DeadLetter]]:
    """Letters of one handler and partition, in the order given; one of the drain alone."""
    groups: dict[tuple[object, ...], list[DeadLetter]] = {}
    for letter in letters:
        own = letter.id if letter.handler == DRAIN_HANDLER else None
        place = letter.handler, letter.topic, letter.partition, own
        groups.setdefault(place, []).append(letter)
    for group in groups.values():
        for begin in range(0, len(group), size):
            yield group[begin : begin + size]


def _resolve(
    action: str, batch: Sequence[DeadLetter], by: str, note: str, run: int
) -> dict[int, str]:
    """By id: why nothing was done, or an empty string."""
    words = dict.fromkeys((letter.id for letter in batch), "already resolved")
    first = batch[0]
    with transaction.atomic():
        if first.handler == DRAIN_HANDLER:
            words |= _resolve_drains(action, first, by, note)
        else:
            assert first.partition is not None  # only letters of the drain have none
            key = first.topic, first.partition
            positions.lock_positions(first.handler, [key], wait=REDRIVE.lock_wait)
            # Read now that nobody else can change them.
            open_letters = letter_rows.lock_letters(id__in=list(words))
            if open_letters:
                words |= (_replay if action == REPLAY else _discard)(open_letters, by, note)
        DeadLetterAction.objects.bulk_create(
            DeadLetterAction(letter_id=letter_id, action=action, by=by, note=note)
            for letter_id, word in words.items()
            if not word
        )
        done = sum(not word for word in words.values())
        operator_log.add(run, done=done, skipped=len(words) - done)
    return words


def _resolve_drains(action: str, row: DeadLetter, by: str, note: str) -> dict[int, str]:
    lock_lanes([lane_of(from_column(row.key))], wait=LANE_WAIT)
    for letter in letter_rows.lock_letters(id=row.id):  # read now that nobody can change it
        if action == DISCARD:
            letter_rows.resolve([letter.id], State.DISCARDED, by=by, note=note)
            refused.discard(letter)
        elif letter.state != State.DEAD:
            return {letter.id: "already put back"}
        else:
            refused.put_back(letter)
            letter_rows.try_again("id = %s", [letter.id])
        return {letter.id: ""}
    return {}


def _replay(letters: Sequence[Letter], by: str, note: str) -> dict[int, str]:
    """Make them due now, with all their attempts; a follower is applied after its head. A
    follower without a head becomes the head."""
    words = {letter.id: "" for letter in letters}
    for letter in letters:
        if letter.state == State.PARKED:
            [head] = letter_rows.head_of(letter.handler, letter.place)
            if head.id != letter.id:
                words[letter.id] = "follows its head"
    ids = [letter_id for letter_id, word in words.items() if not word]
    letter_rows.try_again("id = ANY(%s)", [ids])
    return words


def _discard(letters: Sequence[Letter], by: str, note: str) -> dict[int, str]:
    """Discard them: they are never applied, and what waits behind them is."""
    handler = letters[0].handler
    mine = receipts.settle_receipts(
        handler, [letter.event.event_id for letter in letters], InboxReceipt.Outcome.DISCARDED
    )
    done = {letter.id: letter.event.event_id in mine for letter in letters}
    for state, wanted in ((State.DISCARDED, True), (State.APPLIED, False)):
        ids = [letter_id for letter_id, is_mine in done.items() if is_mine is wanted]
        letter_rows.resolve(ids, state, by=by, note=note)
    redrive.free_places(letters, ordered=_is_ordered(handler))
    return {key: "" if is_mine else "was applied meanwhile" for key, is_mine in done.items()}


def _is_ordered(handler: str) -> bool:
    """A handler that is no longer in the event map counts as ordered."""
    try:
        return conf.route_named(handler).ordered
    except LookupError:
        return True


def _refuse_headless(letters: Sequence[DeadLetter]) -> None:
    """Raises FollowersWithoutHead if a follower's head is not among the letters."""
    followers = {
        (letter.handler, letter.topic, letter.partition, letter.key): letter.id
        for letter in letters
        if letter.state == State.PARKED
    }
    if not followers:
        return
    rows = rows_of(
        """
        SELECT follower.id
        FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::text[], %s::bigint[])
            AS follower (handler, topic, "partition", key, id)
        CROSS JOIN LATERAL (
            SELECT id FROM dead_letter AS letter
            WHERE letter.handler = follower.handler AND letter.topic = follower.topic
              AND md5(letter.key) = md5(follower.key) AND letter.key = follower.key
              AND letter."partition" = follower."partition" AND letter.state < 3
            ORDER BY id LIMIT 1
        ) AS head
        WHERE head.id <> ALL(%s)
        ORDER BY follower.id
        """,
        (
            *map(list, zip(*followers, strict=True)),
            list(followers.values()),
            [letter.id for letter in letters],
        ),
    )
    headless = [row[0] for row in rows]
    if headless:
        some = ", ".join(str(letter_id) for letter_id in headless[:_NAMED])
        raise FollowersWithoutHead(
            f"Some letters wait behind another of their key, a head that is not selected: {some}. Name"
            " the head too: a head is applied before its followers."
        )


def _followers_beside(letters: Sequence[DeadLetter]) -> int:
    """Open letters of the same keys that are not among these."""
    row = row_of(
        """
        SELECT count(*) FROM (
            SELECT FROM (
                SELECT DISTINCT handler, topic, "partition", key
                FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::text[])
                    AS named (handler, topic, "partition", key)
            ) AS wanted
            JOIN dead_letter AS letter ON letter.handler = wanted.handler
                AND letter.topic = wanted.topic AND md5(letter.key) = md5(wanted.key)
                AND letter.key = wanted.key AND letter."partition" = wanted."partition"
            WHERE letter.state = 1 AND letter.state < 3 AND letter.id <> ALL(%s) LIMIT 10000
        ) AS beside
        """,
        (
            [letter.handler for letter in letters],
            [letter.topic for letter in letters],
            [letter.partition for letter in letters],
            [letter.key for letter in letters],
            [letter.id for letter in letters],
        ),
    )
    return int(row[0])
