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
    "Decision",
    "IdempotencyKey",
    "Keyed",
    "NotDone",
    "answer_of_used",
    "claim",
    "decide",
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
        "error": f"This {HEADER} was used with another body; send a new key.",
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
    ahead: list[Change[Result] | Steps[Result | None]] = []

    def write_ahead() -> None:
        with suppress(Exception):  # it is raised where it belongs
            ahead.append(write([request.command for request in requests]))

    rows: Sequence[Sequence[Row]] = ((), ())
    if statements := claim(requests):
        rows = yield RoundTrip(statements, meanwhile=write_ahead)
    decision = decide(requests, *rows)
    fresh: dict[int, Answer] = {}
    trip = RoundTrip()
    if decision.todo:
        commands = [requests[position].command for position in decision.todo]
        made = ahead[0] if ahead and len(commands) == len(requests) else write(commands)
        change = made if isinstance(made, Change) else (yield from made)
        for position, command, result in zip(decision.todo, commands, change.results, strict=True):
            if result is not None:
                fresh[position] = json_answer(*answer(command, result))
        forget = [(_FORGET, (array_literal(decision.expired),))] if decision.expired else []
        written = [*forget, *change.trip.statements, *_keep(requests, fresh)]
        trip = RoundTrip(written, change.trip.on_commit)
    return Change(_answers(requests, decision, fresh), trip)


def answer_of_used(key: IdempotencyKey | None) -> Answer | None:
    """The answer to a request whose key is not free: the first answer, 422 for another body, 409
    while the first one runs. None if it is free, or there is none.

    For a request that is refused before `perform_once`: what its key was used for comes first.
    Raises NotStored.
    """
    if key is None:
        return None
    requests = [Keyed(None, key)]
    with unit_of_work():
        decision = decide(requests, *send(RoundTrip(claim(requests))))
    return decision.answered.get(0)


def claim(requests: Sequence[Keyed[Any]]) -> list[Statement]:
    """Statements that lock the keys until the transaction ends, as far as nobody else holds them, and
    read what is kept; none where there are no keys."""
    keys = [request.key for request in requests if request.key is not None]
    if not keys:
        return []
    locks = array_literal(sorted({key.lock for key in keys}))
    ids = array_literal(sorted({key.id for key in keys}))
    return [(TRY_LOCKS, (locks,)), (READ_KEPT, (KEPT_HOURS, ids))]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the requests of a batch, by their positions; each stands in one of the first three.

    todo      to be done
    answered  already, by what is kept or because the key is held
    repeats   position -> that of the first request with the same key, which is to be done
    expired   ids of kept rows to delete, because their keys are used again before the prune came to them
    """

    todo: Sequence[int]
    answered: Mapping[int, Answer]
    repeats: Mapping[int, int]
    expired: Sequence[str]


def decide(requests: Sequence[Keyed[Any]], tries: Sequence[Row], found: Sequence[Row]) -> Decision:
    """What the rows of `claim`'s two statements say. A kept answer is given whoever holds the lock:
    others may be looking it up just now."""
    locked = {lock for lock, got in tries if got}
    kept = {row[0].hex: row[1:4] for row in found if not row[4]}
    expired = [row[0].hex for row in found if row[4] and lock_of(row[0].hex) in locked]
    todo: list[int] = []
    answered: dict[int, Answer] = {}
    repeats: dict[int, int] = {}
    first: dict[str, int] = {}
    for position, request in enumerate(requests):
        key = request.key
        if key is None:
            todo.append(position)
        elif key.id in kept:
            fingerprint, status, body = kept[key.id]
            is_same = fingerprint.hex == key.fingerprint
            answered[position] = Answer(status, bytes(body), _REPLAYED) if is_same else _REUSED
        elif key.lock not in locked:
            answered[position] = _RUNNING
        elif key.id in first:
            repeats[position] = first[key.id]
        else:
            first[key.id] = position
            todo.append(position)
    return Decision(todo, answered, repeats, expired)


def _keep(requests: Sequence[Keyed[Any]], fresh: Mapping[int, Answer]) -> list[Statement]:
    """Writes the answers that have a key."""
    rows = [(key, fresh[each]) for each in fresh if (key := requests[each].key) is not None]
    if not rows:
        return []
    columns = (
        array_literal([key.id for key, _ in rows]),
        array_literal([key.fingerprint for key, _ in rows]),
        array_literal([answer.status for _, answer in rows]),
        text_array_literal([f"\\x{answer.body.hex()}" for _, answer in rows]),
    )
    return [(KEEP, columns)]


def _answers(
    requests: Sequence[Keyed[Any]], decision: Decision, fresh: Mapping[int, Answer]
) -> list[Answer | None]:
    """In order. None: it could not be done, nor could the first one with its key."""
    answers = [fresh.get(each, decision.answered.get(each)) for each in range(len(requests))]
    for position, first in decision.repeats.items():
        if (done := fresh.get(first)) is not None:
            is_same = requests[position].key == requests[first].key
            again = Answer(done.status, done.body, _REPLAYED)
            answers[position] = again if is_same else _REUSED
    return answers


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
