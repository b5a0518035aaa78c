"""Dead letters by handler and error, those in PostgreSQL's inbox and those that apps keep; and whole letters.

A group holds the letters of one handler whose errors begin alike; the end of an error is often about one
event alone. A group is named by its newest letter, so no error and no key appears in an address, and letters
that come later do not belong to the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.db import connection, transaction
from django.urls import reverse

from outbox import conf
from outbox.database.planner import plan_without
from outbox.dead_letters import resolve
from outbox.dead_letters.resolve import Selection
from outbox.declaration import AppLetter, LetterQuery, LetterSource
from outbox.envelope import parse_id
from outbox.masking import masked
from outbox.models import DeadLetter, DeadLetterAction

__all__ = [
    "COUNTED",
    "ERROR_SHOWN",
    "GroupKey",
    "GroupStatus",
    "LetterGroup",
    "LetterPage",
    "Members",
    "as_number",
    "group_like",
    "groups_of",
    "groups_of_apps",
    "inspect",
    "letter_groups",
    "members",
    "members_of_app",
    "source_named",
    "standing",
]

ERROR_SHOWN = 160
COUNTED = 20_000  # letters looked at for a preview
OF_APPS = 1_000  # letters of each source, the oldest
SAMPLE = 20
FOLLOWERS_OF = 500  # letters
ACTIONS_SHOWN = 50
GROUPS_SHOWN = 20
KEY_SHOWN = 80
NUMBER_LENGTH = 19  # digits of the largest bigint
_GROUPS = """
    SELECT handler, left(error, %s), count(*),
           extract(epoch FROM clock_timestamp() - min(created_at))::float, max(id)
    FROM (SELECT id, handler, error, created_at FROM dead_letter
          WHERE state BETWEEN 2 AND 2 AND state < 3 ORDER BY state DESC, id DESC LIMIT %s) newest
    GROUP BY 1, 2 ORDER BY 3 DESC, 5 LIMIT %s
"""
# Reads along the index of the open letters and skips other groups, so the number of rows is bounded.
_MEMBERS = """
    WITH looked AS MATERIALIZED (
        SELECT id, handler = %s AND left(error, %s) = %s AS wanted FROM dead_letter
        WHERE state BETWEEN 2 AND 2 AND state < 3 AND id > %s AND id <= %s
        ORDER BY state, id LIMIT %s
    )
    SELECT array(SELECT id FROM looked WHERE wanted ORDER BY id LIMIT %s),
           (SELECT count(*) FROM looked WHERE wanted),
           (SELECT coalesce(max(id), 0) FROM looked), (SELECT count(*) FROM looked)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterGroup:
    """Dead letters of one handler with one error, among the newest. `oldest`: seconds; `like`: the id of the
    newest of them, a number or, for a letter of an app, a UUID."""

    handler: str
    error: str
    letters: int
    oldest: float
    like: str

    @property
    def shown(self) -> str:
        """The error, without secrets."""
        return masked(self.error)

    @property
    def page(self) -> str:
        """Where the newest of them is shown: an app's has its journey, with its attempts."""
        if as_number(self.like) is not None:
            return reverse("ops-letter", args=[self.like])
        return f"{reverse('ops-journey')}?id={self.like}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKey:
    """Names a group: the letters of a handler whose error begins with `error`, up to and with one letter."""

    handler: str
    error: str
    upto: int | UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Some letters of a group, in order.

    found  how many letters of the group were seen; `ids` holds the first of them
    whole  all letters of the handler up to the group's last were seen
    last   the letters up to this id are dealt with
    ended  no letter of the group follows it
    """

    ids: Sequence[int]
    found: int
    whole: bool
    last: int
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """The state of a group. `whole`: all letters were counted; `followers`: letters that wait behind the
    first of them; `columns` and `rows`: some letters, in words."""

    letters: int
    whole: bool
    followers: int
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def letter_groups(looked_at: int) -> list[LetterGroup]:
    """The groups among the newest `looked_at` letters, the largest first."""
    with transaction.atomic(), connection.cursor() as cursor:
        plan_without("bitmapscan", "seqscan", "sort")  # the newest, along their index
        cursor.execute(_GROUPS, (ERROR_SHOWN, looked_at, GROUPS_SHOWN))
        rows = cursor.fetchall()
    return [
        LetterGroup(handler=handler, error=error, letters=letters, oldest=oldest, like=str(newest))
        for handler, error, letters, oldest, newest in rows
    ]


def groups_of_apps() -> list[LetterGroup]:
    """Of what apps keep in rows of their own, among the oldest of each; they are named by UUIDs."""
    groups = [group for source in conf.letter_sources() for group in groups_of(source, OF_APPS)]
    return sorted(groups, key=lambda group: -group.letters)[:GROUPS_SHOWN]


def groups_of(source: LetterSource, looked_at: int) -> list[LetterGroup]:
    """The same of one app, the largest first."""
    found: dict[str, list[AppLetter]] = {}
    for letter in source.find(LetterQuery(), looked_at):
        found.setdefault(letter.error[:ERROR_SHOWN], []).append(letter)
    now = datetime.now(UTC)
    groups = [
        LetterGroup(
            handler=source.name,
            error=error,
            letters=len(letters),
            oldest=(now - min(letter.failed_at for letter in letters)).total_seconds(),
            like=str(max(letter.id for letter in letters)),
        )
        for error, letters in found.items()
    ]
    return sorted(groups, key=lambda group: -group.letters)[:GROUPS_SHOWN]


def source_named(name: str) -> LetterSource | None:
    """The source of an app with this name, or None."""
    return next((source for source in conf.letter_sources() if source.name == name), None)


def as_number(text: str) -> int | None:
    """The text as the number of a row, or None if it cannot be one."""
    is_one = text.isascii() and text.isdigit() and len(text) < NUMBER_LENGTH
    return int(text) if is_one else None


def group_like(wanted: str) -> GroupKey | None:
    """The group of the letter with this number or UUID; None if there is no such letter."""
    number = as_number(wanted)
    if number is not None:
        row = DeadLetter.objects.filter(id=number).values_list("handler", "error").first()
        return GroupKey(handler=row[0], error=row[1][:ERROR_SHOWN], upto=number) if row else None
    if (id_ := parse_id(wanted)) is None:
        return None
    for source in conf.letter_sources():
        for letter in source.find(LetterQuery(ids=[id_]), 1):
            return GroupKey(handler=source.name, error=letter.error[:ERROR_SHOWN], upto=id_)
    return None


def members(group: GroupKey, *, after: int, limit: int, looked_at: int) -> Members:
    """Up to `limit` letters of a group after an id, among the next `looked_at` dead letters."""
    with transaction.atomic(), connection.cursor() as cursor:
        plan_without("bitmapscan", "seqscan", "sort")
        cursor.execute(
            _MEMBERS,
            (group.handler, ERROR_SHOWN, group.error, after, group.upto, looked_at, limit),
        )
        ids, found, last, looked = cursor.fetchone()
    whole = looked < looked_at
    cut = found > len(ids)
    return Members(
        ids=ids,
        found=found,
        whole=whole,
        last=(ids[-1] if ids else after) if cut else last or after,
        ended=whole and not cut,
    )


def members_of_app(
    source: LetterSource, group: GroupKey, *, after: UUID | None, limit: int
) -> list[AppLetter]:
    """The same for a group of an app, in the order of ids."""
    assert isinstance(group.upto, UUID)
    return [
        letter
        for letter in source.find(LetterQuery(error=group.error), OF_APPS)
        if letter.error[:ERROR_SHOWN] == group.error
        and letter.id <= group.upto
        and (after is None or letter.id > after)
    ][:limit]


def standing(group: GroupKey) -> GroupStatus:
    """The state of a group, for a preview."""
    source = source_named(group.handler)
    if source is not None:
        found = members_of_app(source, group, after=None, limit=OF_APPS)
        return GroupStatus(
            letters=len(found),
            whole=len(found) < OF_APPS,
            followers=0,
            columns=("id", "topic", "attempts", "error"),
            rows=[
                (letter.id, letter.topic, letter.attempts, masked(letter.error)[:ERROR_SHOWN])
                for letter in found[:SAMPLE]
            ],
        )
    first = members(group, after=0, limit=FOLLOWERS_OF, looked_at=COUNTED)
    wanted = Selection(ids=first.ids, states=[DeadLetter.State.DEAD])
    letters, beside = resolve.preview(wanted, limit=FOLLOWERS_OF) if first.ids else ([], 0)
    return GroupStatus(
        letters=first.found,
        whole=first.whole,
        followers=beside,
        columns=("id", "topic", "key", "attempts", "error"),
        rows=[
            (
                letter.id,
                letter.topic,
                masked(letter.key)[:KEY_SHOWN],
                letter.attempts,
                masked(letter.error)[:ERROR_SHOWN],
            )
            for letter in letters[:SAMPLE]
        ],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterPage:
    """One dead letter, without secrets. `facts`: pairs of name and value; `done`: earlier actions, as (when,
    what, who, why); `is_open`: it can be replayed or discarded."""

    id: int
    handler: str
    state: str
    is_open: bool
    event_id: UUID
    error: str
    payload: str
    facts: Sequence[tuple[str, object]]
    done: Sequence[tuple[datetime, str, str, str]]


def inspect(letter_id: int) -> LetterPage | None:
    """The dead letter with this number, or None."""
    letter = DeadLetter.objects.filter(id=letter_id).first()
    if letter is None:
        return None
    done = DeadLetterAction.objects.filter(letter=letter).order_by("-id")[:ACTIONS_SHOWN]
    place = "" if letter.offset is None else f"{letter.partition} @ {letter.offset}"
    facts: list[tuple[str, object]] = [
        ("topic", letter.topic),
        ("partition @ offset", place),
        ("key", masked(letter.key)[:KEY_SHOWN]),
        ("type", letter.type),
        ("source", letter.source),
        ("event's time", letter.event_time),
        ("attempts", letter.attempts),
        ("replayed", letter.replay_count),
        ("parked", letter.created_at),
        ("failed", letter.failed_at),
        ("due", letter.next_attempt_at),
        ("resolved", letter.resolved_at),
        ("by", letter.resolved_by),
        ("note", letter.note),
        ("correlation id", letter.correlation_id),
        ("trace", letter.traceparent),
    ]
    return LetterPage(
        id=letter.id,
        handler=letter.handler,
        state=letter.get_state_display(),
        is_open=letter.state < DeadLetter.State.APPLIED,
        event_id=letter.event_id,
        error=masked(letter.error),
        payload=masked(letter.payload),
        facts=[(name, value) for name, value in facts if value not in (None, "")],
        done=[(each.at, each.action, each.by, each.note) for each in done],
    )
