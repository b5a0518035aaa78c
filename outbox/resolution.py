"""What an operator does with dead letters: find, look, replay, discard; command and admin alike.

A letter that waits behind another of its key can only be resolved together with it: a selection
that names followers without their head is refused. Handlers' letters are resolved under the lock
of their position, the drain's under the lock of their lane.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet, TextField, Value
from django.db.models.functions import MD5

from outbox import conf, dead_letters, drain_letters, inbox, redrive
from outbox.dead_letters import DRAIN_HANDLER, Letter
from outbox.envelope import to_column
from outbox.models import DeadLetter, DeadLetterAction, InboxReceipt

__all__ = [
    "DISCARD",
    "REPLAY",
    "FollowersWithoutHead",
    "Outcome",
    "Selection",
    "preview",
    "resolve_letters",
    "select",
]

REPLAY = "replay"
DISCARD = "discard"
_NAMED = 5  # ids in an error message

State = DeadLetter.State


class FollowersWithoutHead(ValueError):
    """Some of these letters wait behind another of their key, which is not among them. Name the head
    too (by its id, or all of the key by --key): it goes first, and its followers go after it."""


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
class Outcome:
    """What became of one letter: `done`, or why not."""

    letter: DeadLetter
    done: bool
    word: str


def select(wanted: Selection) -> QuerySet[DeadLetter]:
    """The letters that are meant, oldest first."""
    rows = DeadLetter.objects.filter(state__in=list(wanted.states)).order_by("id")
    if wanted.ids:
        rows = rows.filter(id__in=list(wanted.ids))
    if wanted.topic:
        rows = rows.filter(topic=wanted.topic)
    if wanted.handler:
        rows = rows.filter(handler=wanted.handler)
    if wanted.key is not None:
        rows = rows.filter(key=to_column(wanted.key))
    if wanted.error:
        rows = rows.filter(error__contains=wanted.error)
    if wanted.since:
        rows = rows.filter(created_at__gte=wanted.since)
    return rows


def preview(wanted: Selection, *, limit: int) -> tuple[list[DeadLetter], int]:
    """The first `limit` letters to resolve, and how many followers of theirs go on afterwards
    beside them, counted up to 10,000. Raises FollowersWithoutHead."""
    letters = list(select(wanted)[:limit])
    _refuse_headless(letters)
    return letters, _followers_beside(letters)


def resolve_letters(
    action: str, wanted: Selection, *, by: str, limit: int, rate: float = 0.0, note: str = ""
) -> Iterator[Outcome]:
    """Replay or discard, one transaction a letter, at most `rate` a second (0: no bound).

    Yields what became of each. Ended half-way it can be started again: what is done is no longer
    selected, or is skipped. Raises FollowersWithoutHead before anything is done.
    """
    letters, _ = preview(wanted, limit=limit)
    if action == DISCARD:
        letters.reverse()  # the head last: a follower it sets free could be applied before its turn
    started = time.monotonic()
    for number, letter in enumerate(letters):
        if rate:
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
        try:
            word = _resolve_one(action, letter.id, by, note)
        except OperationalError as error:
            yield Outcome(letter, False, f"not now: {str(error).strip()}")
            continue
        yield Outcome(letter, not word, word or f"{action}ed")


def _resolve_one(action: str, letter_id: int, by: str, note: str) -> str:
    """Why nothing was done, or an empty string."""
    with transaction.atomic():
        known = dead_letters.read_letter(letter_id)
        if known is None:
            return "already resolved"
        _lock(known)
        found = dead_letters.lock_letters([letter_id])  # again, now that nobody can change it
        if not found:
            return "already resolved"
        letter = found[0]
        word = (_replay if action == REPLAY else _discard)(letter, by, note)
        if not word:
            DeadLetterAction.objects.create(letter_id=letter.id, action=action, by=by, note=note)
        return word


def _lock(letter: Letter) -> None:
    if letter.handler == DRAIN_HANDLER:
        drain_letters.lock_lane(letter)
    else:
        redrive.lock_place(letter, even_paused=True)


def _replay(letter: Letter, by: str, note: str) -> str:
    """Due now, with all its tries; a follower comes by itself once its head is through. One that
    was left without a head is made the head."""
    if letter.state == State.PARKED:
        [head] = dead_letters.head_of(letter.handler, letter.place)
        if head.id != letter.id:
            return "follows its head"
    again = letter.state == State.DEAD
    if letter.handler == DRAIN_HANDLER:
        if not again:
            return "already put back"
        drain_letters.put_back(letter)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE dead_letter SET state = 0, attempts = 0, next_attempt_at = clock_timestamp(),
                replay_count = replay_count + %s
            WHERE id = %s
            """,
            (int(again), letter.id),
        )
    return ""


def _discard(letter: Letter, by: str, note: str) -> str:
    """Never to be applied; what waits behind it goes on."""
    if letter.handler == DRAIN_HANDLER:
        dead_letters.resolve([letter.id], State.DISCARDED, by=by, note=note)
        drain_letters.discard(letter)
        return ""
    mine = inbox.settle_receipts(
        letter.handler, [letter.event.event_id], InboxReceipt.Outcome.DISCARDED
    )
    dead_letters.resolve([letter.id], State.DISCARDED if mine else State.APPLIED, by=by, note=note)
    redrive.free_place(letter, ordered=_is_ordered(letter.handler), delay=0.0)
    return "" if mine else "was applied meanwhile"


def _is_ordered(handler: str) -> bool:
    """A handler that has left the map is treated as the stricter kind."""
    try:
        return conf.route_named(handler).ordered
    except LookupError:
        return True


def _refuse_headless(letters: Iterable[DeadLetter]) -> None:
    """Raises FollowersWithoutHead if a follower's head is not among the letters."""
    listed = list(letters)
    ids = {letter.id for letter in listed}
    followers = {
        (letter.handler, letter.topic, letter.partition, letter.key): letter.id
        for letter in listed
        if letter.state == State.PARKED
    }
    headless = [
        letter_id
        for place, letter_id in followers.items()
        if (head := _of_key(*place).values_list("id", flat=True).first()) is not None
        and head not in ids
    ]
    if headless:
        some = ", ".join(str(letter_id) for letter_id in headless[:_NAMED])
        sentence = " ".join((FollowersWithoutHead.__doc__ or "").split())
        raise FollowersWithoutHead(f"{sentence} Such as: {some}.")


def _of_key(handler: str, topic: str, partition: int | None, key: str) -> QuerySet[DeadLetter]:
    return (
        DeadLetter.objects.annotate(key_md5=MD5("key"))
        .filter(
            handler=handler,
            topic=topic,
            partition=partition,
            key=key,
            state__lt=State.APPLIED,
            key_md5=MD5(Value(key, TextField())),
        )
        .order_by("id")
    )


def _followers_beside(letters: Sequence[DeadLetter]) -> int:
    """Open letters of the same keys that are not among these."""
    with connection.cursor() as cursor:
        cursor.execute(
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
        return int(cursor.fetchone()[0])
