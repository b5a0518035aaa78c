"""The dead letters of the relay, which lie in a queue of RabbitMQ: groups by kind and reason, and whole letters.

The page reads the head of the queue when somebody looks. A letter behind the first thousand can be reached once
those before it are gone. A group is named by its newest letter, as for handlers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from operations.action import ActionRequest
from operations.letters import ERROR_SHOWN, SAMPLE
from outbox import operator_log
from outbox.dead_letters.resolve import REPLAY
from outbox.envelope import parse_id
from outbox.masking import masked
from outbox.rabbitmq.letters import Bound, RelayLetter, look, resolve
from outbox.rabbitmq.letters import LettersUnavailable as Unavailable
from outbox.rabbitmq.policy import configured

__all__ = [
    "LOOKED_AT",
    "ListedRelayLetter",
    "RelayGroup",
    "RelayLetterPage",
    "RelayLook",
    "Unavailable",
    "belongs",
    "group_like",
    "groups",
    "inspect",
    "of_event",
    "resolve_one",
    "take",
]

LOOKED_AT = 1_000
_BOUND = Bound(letters=LOOKED_AT, size=32 * 1024 * 1024, seconds=2)
_NOT_OURS = "not put here by a relay"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRelayLetter:
    """A letter in a list. `shown`: its reason without secrets; `age`: seconds, None if the letter has no time."""

    id: str
    event_id: str
    shown: str
    age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayGroup:
    """Dead letters of one kind with one reason, among the first of the queue.

    name    kind and reason; the letters that have both belong to the group
    like    id of the newest letter; empty if the letters have no ids
    upto    time of the newest letter, as the letter has it
    oldest  seconds; None if the letters have no times
    whole   the whole queue was read
    """

    name: str
    kind: str
    letters: int
    oldest: float | None
    like: str
    upto: str
    whole: bool
    sample: Sequence[ListedRelayLetter]

    @property
    def shown(self) -> str:
        """The reason, without secrets."""
        return masked(self.name.partition(": ")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLook:
    """`waiting`: letters in the queue; `looked_at`: how many of them."""

    groups: Sequence[RelayGroup]
    waiting: int
    looked_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLetterPage:
    """One letter, without secrets. `facts`: pairs of name and value."""

    id: str
    kind: str
    event_id: str
    age: float | None
    shown: str
    payload: str
    headers: str
    facts: Sequence[tuple[str, object]]


def groups() -> RelayLook:
    """The groups at the head of the queue, the largest first. Raises Unavailable."""
    found = look(configured(), _BOUND)
    members: dict[str, list[RelayLetter]] = {}
    for letter in found.letters:
        members.setdefault(_name(letter), []).append(letter)
    made = [_group(name, letters, whole=found.whole) for name, letters in members.items()]
    return RelayLook(
        groups=sorted(made, key=lambda group: -group.letters),
        waiting=found.waiting,
        looked_at=len(found.letters),
    )


def group_like(letter_id: str) -> RelayGroup | None:
    """The group of the letter with this id; None if the letter is not near the head. Raises Unavailable."""
    if parse_id(letter_id) is None:
        return None
    found = look(configured(), _BOUND)
    name = next((_name(letter) for letter in found.letters if letter.id == letter_id), None)
    if name is None:
        return None
    letters = [letter for letter in found.letters if _name(letter) == name]
    return _group(name, letters, whole=found.whole)


def inspect(letter_id: str) -> RelayLetterPage | None:
    """The letter with this id, or None. Raises Unavailable."""
    if parse_id(letter_id) is None:
        return None
    found = look(configured(), _BOUND)
    letter = next((letter for letter in found.letters if letter.id == letter_id), None)
    if letter is None:
        return None
    facts: list[tuple[str, object]] = [
        ("kind", letter.kind),
        ("event id", masked(letter.event_id)),
        ("failed", _moment(letter)),
        ("exchange", letter.exchange),
        ("routing key", letter.routing_key),
        ("size", f"{len(letter.body):,} bytes"),
    ]
    headers = letter.properties.headers_shown()
    return RelayLetterPage(
        id=letter.id,
        kind=letter.kind,
        event_id=letter.event_id,
        age=_age(letter),
        shown=masked(letter.reason),
        # Bytes that are not UTF-8 are escaped, so the rest can be read, and masked.
        payload=masked(letter.body.decode("utf-8", "backslashreplace")),
        headers=masked(json.dumps(headers, default=str)) if headers else "",
        facts=[(name, value) for name, value in facts if value not in (None, "")],
    )


def of_event(event_id: str) -> tuple[list[ListedRelayLetter], bool]:
    """Those of one event among the first of the queue, each with its kind and reason; whether all of the
    queue was looked at. Raises Unavailable."""
    found = look(configured(), _BOUND)
    listed = [
        _listed(letter, f"{letter.kind}: {letter.reason}")
        for letter in found.letters
        if letter.id and letter.event_id == event_id
    ]
    return listed, found.whole


def resolve_one(action: str, letter_id: str, asked: ActionRequest) -> bool:
    """Put one letter into the relay's queue again, or delete it. Returns whether it was there. Raises
    Unavailable, and DoneAlready for a form that was sent before."""
    # The row comes first: RabbitMQ takes part in no transaction.
    of, by, why = f"dead letter {letter_id} of the relay", asked.by, asked.why
    run = operator_log.begin(action, of, by=by, why=why, asked=1, once=asked.once)
    try:
        done = take(action, lambda letter: letter.id == letter_id, limit=1)
    except Unavailable as error:
        operator_log.end(run, str(error))
        raise
    operator_log.add(run, done=done, skipped=1 - done)
    operator_log.end(run, "" if done else "it was not there any more")
    return bool(done)


def take(action: str, wanted: Callable[[RelayLetter], bool], *, limit: int) -> int:
    """The same for up to `limit` letters near the head. Returns how many. Raises Unavailable; some letters
    may be done then."""
    replay = action == REPLAY
    return sum(1 for _ in resolve(configured(), wanted, limit=limit, replay=replay, bound=_BOUND))


def belongs(name: str, upto: str) -> Callable[[RelayLetter], bool]:
    """A test for letters: of this group, and not later than that time."""
    return lambda letter: bool(letter.id) and letter.time <= upto and _name(letter) == name


def _name(letter: RelayLetter) -> str:
    return f"{letter.kind}: {letter.reason[:ERROR_SHOWN]}" if letter.id else f": {_NOT_OURS}"


def _group(name: str, letters: Sequence[RelayLetter], *, whole: bool) -> RelayGroup:
    newest = max(letters, key=lambda letter: letter.time)
    ages = [age for letter in letters if (age := _age(letter)) is not None]
    return RelayGroup(
        name=name,
        kind=newest.kind,
        letters=len(letters),
        oldest=max(ages, default=None),
        like=newest.id,
        upto=newest.time,
        whole=whole,
        sample=[_listed(letter, letter.reason) for letter in letters[:SAMPLE]],
    )


def _listed(letter: RelayLetter, reason: str) -> ListedRelayLetter:
    return ListedRelayLetter(
        id=letter.id,
        event_id=masked(letter.event_id),
        shown=masked(reason)[:ERROR_SHOWN],
        age=_age(letter),
    )


def _moment(letter: RelayLetter) -> datetime | None:
    try:
        moment = datetime.fromisoformat(letter.time)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _age(letter: RelayLetter) -> float | None:
    moment = _moment(letter)
    return (datetime.now(UTC) - moment).total_seconds() if moment else None
