"""Idempotency keys: a request that is sent again is answered again and done once
(docs/http.md#idempotency-keys).

After draft-ietf-httpapi-idempotency-key-header and Stripe's idempotent requests. *Same body* means the
same bytes: comparing parsed JSON would have to say whether 1 and 1.0 are the same, and every wrong
answer to that would replay what was not asked. The key is opaque: quotes, which the draft's examples
have, are part of it.

A transaction that inserts or deletes the row of a key holds the key's advisory lock until COMMIT. It
is only tried: a request that does not get it and finds no row gets a 409. The rows are read after the
lock, in a statement of its own, whose snapshot has everything that the previous holder committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import msgspec
from django.http import HttpResponse
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.request import Request

from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import Change, RoundTrip, Row, Statement, Steps, run, send
from outbox.database.unit_of_work import unit_of_work
from restapi.answers import Answer, json_answer, to_response
from restapi.context import caller

__all__ = [
    "HEADER",
    "KEEP",
    "KEPT_HOURS",
    "READ_KEPT",
    "TRY_LOCKS",
    "IdempotencyKey",
    "Keyed",
    "NotDone",
    "answer_of_used",
    "id_of",
    "key_of",
    "key_of_headers",
    "lock_of",
    "once",
    "perform_once",
    "respond_once",
]

HEADER = "Idempotency-Key"
KEPT_HOURS = 24
MAX_LENGTH = 255
RETRY_AFTER_SECONDS = 1

Command = TypeVar("Command")
Result = TypeVar("Result")

_ASGI_NAME = HEADER.lower().encode()
_REPLAYED = ((b"idempotent-replayed", b"true"),)
_RUNNING = json_answer(
    409,
    {
        "error": f"A request with this {HEADER} is still running; try again in a moment.",
        "details": [],
    },
    ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),),
)
_REUSED = json_answer(
    422,
    {
        "error": f"This {HEADER} belongs to a request with another body; take a new one.",
        "details": [{"field": HEADER, "message": "Was used with another body."}],
    },
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request's key: `id` is hash of caller, endpoint and key, `fingerprint` that of the body
    (32 hexadecimal digits each), `lock` the number of its advisory lock."""

    id: str
    fingerprint: str
    lock: int


class Keyed(msgspec.Struct, Generic[Command], frozen=True):
    """What to do, and the key it came with, if any."""

    command: Command
    key: IdempotencyKey | None = None


class NotDone(Exception):
    """A command that cannot be done in the present state; nothing of it is stored, and its key
    stays free."""


def key_of(request: Request, *, query: bool = False) -> IdempotencyKey | None:
    """The key of a request in a Django view. `query`: the command is also made of the query
    string, which then belongs to what must be the same. Raises ValidationError (400) for a bad one.
    """
    text = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if text is None:
        return None
    endpoint = f"{request.method} {request.path}"
    asked = request.META["QUERY_STRING"].encode() if query else b""
    return _key(text, endpoint=endpoint, body=request._request.body, query=asked)


def key_of_headers(
    headers: Iterable[tuple[bytes, bytes]], *, endpoint: str, body: bytes, query: bytes = b""
) -> IdempotencyKey | None:
    """The same from ASGI headers; `endpoint` is method and decoded path, as in `POST /orders`;
    `query` is empty where the command is not made of it. The gateway has refused a header that is
    given twice; here it is a ValidationError too."""
    given = [value for name, value in headers if name == _ASGI_NAME]
    if not given:
        return None
    if len(given) > 1:
        raise ValidationError({HEADER: ["Must be given once."]})
    return _key(given[0].decode("latin-1"), endpoint=endpoint, body=body, query=query)


def _key(text: str, *, endpoint: str, body: bytes, query: bytes) -> IdempotencyKey:
    if not (0 < len(text) <= MAX_LENGTH and text.isascii() and text.isprintable()):
        raise ValidationError({HEADER: [f"Must be 1 to {MAX_LENGTH} printable ASCII characters."]})
    id_ = id_of(text, caller=caller(), endpoint=endpoint)
    # JSON has no NUL, so a body with a query never equals another body.
    return IdempotencyKey(id_, _hash(body + b"\0" + query if query else body), lock_of(id_))


def id_of(text: str, *, caller: str, endpoint: str) -> str:
    """Under which id the answer to this key of this caller is kept."""
    # Key and caller have no NUL, so two different triples never give the same text.
    return _hash(f"{text}\0{caller}\0{endpoint}".encode())


def lock_of(id_: str) -> int:
    """The first 64 bits, as PostgreSQL's signed bigint."""
    number = int(id_[:16], 16)
    return number - (1 << 64) if number >> 63 else number


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def perform_once(
    requests: Sequence[Keyed[Command]],
    *,
    write: Callable[[Sequence[Command]], Change[Result] | Steps[Result | None]],
    answer: Callable[[Command, Result], tuple[int, Any]],
) -> Sequence[Answer]:
    """`once` in one transaction on Django's connection, where `write` may also read and send what
    it likes. Raises NotDone for a result that is None; NotStored, or OutcomeUnknown: then the same
    key, sent again, finds out what became of it.
    """
    with unit_of_work():
        answers = run(once(requests, write=write, answer=answer))
        done = [answer for answer in answers if answer is not None]
        if len(done) < len(answers):
            raise NotDone
        return done


def respond_once(
    key: IdempotencyKey | None,
    read: Callable[[], Command],
    *,
    write: Callable[[Sequence[Command]], Change[Result] | Steps[Result | None]],
    answer: Callable[[Command, Result], tuple[int, Any]],
) -> HttpResponse:
    """`perform_once` of one request, for a view. When `read` refuses it, what its key was used for
    comes first."""
    try:
        command = read()
    except (ParseError, ValidationError):
        if (kept := answer_of_used(key)) is not None:
            return to_response(kept)
        raise
    [done] = perform_once([Keyed(command, key)], write=write, answer=answer)
    return to_response(done)


def once(
    requests: Sequence[Keyed[Command]],
    *,
    write: Callable[[Sequence[Command]], Change[Result] | Steps[Result | None]],
    answer: Callable[[Command, Result], tuple[int, Any]],
) -> Steps[Answer | None]:
    """Do a batch of requests, each key once; an answer for each, in order. For one transaction.

    `write` takes the commands to perform and returns their results in the same order, with the
    statements that write them; replayed and locked keys are left out. To save a round trip,
    `write` may be called with all commands while the keys are looked up; that result is dropped
    if any key turns out to be taken. A result of None has no answer, and its key is not kept.
    An exception of `write` must roll the batch back, keys included. Of several requests with one
    key in a batch the first is performed and the others get its answer."""
    batch = _Batch([request.key for request in requests])
    fresh: dict[int, Answer] = {}
    trip = RoundTrip()
    ahead: list[Change[Result] | Steps[Result | None]] = []

    def write_ahead() -> None:
        with suppress(Exception):  # it is raised where it belongs
            ahead.append(write([request.command for request in requests]))

    mine: Sequence[int] = range(len(requests))
    if batch.keyed:
        mine = batch.claimed(*(yield batch.claim(write_ahead)))
    if mine:
        commands = [requests[position].command for position in mine]
        made = ahead[0] if ahead and len(mine) == len(requests) else write(commands)
        change = made if isinstance(made, Change) else (yield from made)
        for position, command, result in zip(mine, commands, change.results, strict=True):
            if result is not None:
                fresh[position] = json_answer(*answer(command, result))
        statements = [*batch.forget(), *change.trip.statements, *batch.keep(fresh)]
        trip = RoundTrip(statements, change.trip.on_commit)
    return Change(batch.answers(mine, fresh), trip)


def answer_of_used(key: IdempotencyKey | None) -> Answer | None:
    """The answer to a request whose key is not free: the first answer, 422 for another body, 409
    while the first one runs. None if it is free, or there is none.

    For a request that is refused before `perform_once`: what its key was used for comes first.
    Raises NotStored.
    """
    if key is None:
        return None
    batch = _Batch([key])
    with unit_of_work():
        is_free = bool(batch.claimed(*send(batch.claim())))
    return None if is_free else batch.answer_to(0)


@dataclass(frozen=True, slots=True)
class _Kept:
    fingerprint: str
    answer: Answer


class _Batch:
    """The keys of one batch; None where a request has none."""

    def __init__(self, keys: Sequence[IdempotencyKey | None]) -> None:
        self._keys = keys
        self._first: dict[str, int] = {}  # of each key its first position
        for position, key in enumerate(keys):
            if key is not None:
                self._first.setdefault(key.id, position)
        self._kept: dict[str, _Kept] = {}
        self._expired: list[str] = []

    @property
    def keyed(self) -> bool:
        return bool(self._first)

    def claim(self, meanwhile: Callable[[], None] | None = None) -> RoundTrip:
        """Locks the keys until the transaction ends, as far as nobody else holds them, and reads
        what is kept. A kept answer is given whoever holds the lock: others may be looking it up
        just now."""
        locks = sorted({key.lock for key in self._keys if key is not None})
        ids = array_literal(sorted(self._first))
        statements = [(TRY_LOCKS, (array_literal(locks),)), (READ_KEPT, (KEPT_HOURS, ids))]
        return RoundTrip(statements, meanwhile=meanwhile)

    def claimed(self, tries: Sequence[Row], found: Sequence[Row]) -> list[int]:
        """What these rows say: the positions that are to be done."""
        locked = {lock for lock, got in tries if got}
        for id_, fingerprint, status, body, is_old in found:
            if not is_old:
                answer = Answer(status, bytes(body), _REPLAYED)
                self._kept[id_.hex] = _Kept(fingerprint.hex, answer)
            elif lock_of(id_.hex) in locked:
                self._expired.append(id_.hex)
        return [
            position
            for position, key in enumerate(self._keys)
            if key is None
            or (self._first[key.id] == position and key.id not in self._kept and key.lock in locked)
        ]

    def forget(self) -> list[Statement]:
        """Deletes rows of ours that the prune has not come to yet: their keys are used again."""
        if not self._expired:
            return []
        return [(_FORGET, (array_literal(self._expired),))]

    def keep(self, fresh: Mapping[int, Answer]) -> list[Statement]:
        """Writes the rows of the keys among these positions."""
        rows = [
            (key, fresh[position])
            for position in self._first.values()
            if position in fresh and (key := self._keys[position]) is not None
        ]
        if not rows:
            return []
        for key, answer in rows:
            repeated = Answer(answer.status, answer.body, _REPLAYED)
            self._kept[key.id] = _Kept(key.fingerprint, repeated)
        columns = (
            array_literal([key.id for key, _ in rows]),
            array_literal([key.fingerprint for key, _ in rows]),
            array_literal([answer.status for _, answer in rows]),
            text_array_literal([f"\\x{answer.body.hex()}" for _, answer in rows]),
        )
        return [(KEEP, columns)]

    def answers(self, mine: Sequence[int], fresh: Mapping[int, Answer]) -> Sequence[Answer | None]:
        """Of all positions, when those of `mine` were tried and those of `fresh` done. None: it
        could not be done, nor could the first one with its key."""
        answers: list[Answer | None] = []
        undone = set(mine) - fresh.keys() if len(fresh) < len(mine) else ()
        for position, key in enumerate(self._keys):
            if (done := fresh.get(position)) is not None:
                answers.append(done)
            elif (position if key is None else self._first[key.id]) in undone:
                answers.append(None)
            else:
                answers.append(self.answer_to(position))
        return answers

    def answer_to(self, position: int) -> Answer:
        """The answer to a request that was not performed."""
        key = self._keys[position]
        assert key is not None  # a request without a key is always performed
        kept = self._kept.get(key.id)
        if kept is None:
            return _RUNNING
        return kept.answer if kept.fingerprint == key.fingerprint else _REUSED


TRY_LOCKS = """
    SELECT lock, pg_try_advisory_xact_lock(lock) FROM unnest(%s::bigint[]) AS lock
"""
READ_KEPT = """
    SELECT id, fingerprint, status, body,
           created_at < clock_timestamp() - make_interval(hours => %s) AS is_old
    FROM idempotency_keys WHERE id = ANY(%s::uuid[])
"""
_FORGET = "DELETE FROM idempotency_keys WHERE id = ANY(%s::uuid[])"
# A row that exists already would break the rules above; it is an IntegrityError.
KEEP = """
    INSERT INTO idempotency_keys (id, fingerprint, status, body)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::smallint[], %s::bytea[])
"""
