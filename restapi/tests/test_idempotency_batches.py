"""Keys of a batch: which are new, used, or held elsewhere, and what it costs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from rest_framework.exceptions import ValidationError

from devtools.testing.patience import PATIENCE
from outbox.database.round_trips import Change
from restapi.answers import Answer
from restapi.idempotency import (
    IdempotencyKey,
    Keyed,
    answer_of_used,
    key_of_headers,
    perform_once,
)
from restapi.models import IdempotencyRow
from restapi.tests.keyed_things import REPLAYED, Things, age, held_elsewhere, key


def test_the_query_belongs_to_the_body_where_the_command_is_made_of_it() -> None:
    def fingerprint(body: bytes, query: bytes) -> str:
        headers = [(b"idempotency-key", b"k")]
        found = key_of_headers(headers, endpoint="DELETE /things", body=body, query=query)
        assert found is not None
        return found.fingerprint

    asked = [(b"{}", b""), (b"{}", b"a=1"), (b"{}", b"a=2"), (b"{}a=1", b""), (b"", b"a=1")]
    assert len({fingerprint(*each) for each in asked}) == len(asked)
    assert fingerprint(b"{}", b"") == key(body="{}").fingerprint  # as of keys that are kept


@pytest.fixture
def things() -> Things:
    return Things()


# Keys


def test_scope_is_caller_endpoint_and_key() -> None:
    texts = ("a", "b", "a\0b")
    ids = {
        key(text, caller=caller, endpoint=endpoint).id
        for text in texts[:2]
        for caller in texts[:2]
        for endpoint in texts
    }
    assert len(ids) == 2 * 2 * 3
    assert key("a", body="1").id == key("a", body="2").id


def test_same_bytes_same_fingerprint() -> None:
    assert key(body='{"a": 1}').fingerprint == key("other", body='{"a": 1}').fingerprint
    assert key(body='{"a": 1}').fingerprint != key(body='{"a":1}').fingerprint


def test_the_lock_is_the_first_half_of_the_id_as_postgresql_has_it() -> None:
    locks = [key(str(number)) for number in range(50)]
    assert min(each.lock for each in locks) < 0 < max(each.lock for each in locks)
    for each in locks:
        assert each.lock == int.from_bytes(bytes.fromhex(each.id)[:8], "big", signed=True)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"idempotency-key", b"")],
        [(b"idempotency-key", b"x" * 256)],
        [(b"idempotency-key", b"a\x7f")],
        [(b"idempotency-key", b"a\xa0")],
        [(b"idempotency-key", b"a"), (b"idempotency-key", b"a")],
    ],
)
def test_bad_keys(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValidationError) as refused:
        key_of_headers(headers, endpoint="POST /things", body=b"")
    assert isinstance(refused.value.detail, dict)
    assert list(refused.value.detail) == ["Idempotency-Key"]


def test_no_key() -> None:
    assert key_of_headers([(b"host", b"x")], endpoint="POST /things", body=b"") is None


# A batch


@pytest.mark.django_db(transaction=True)
def test_a_batch_of_everything(things: Things) -> None:
    used, held = key("used"), key("held")
    [first] = things.perform((1, used))
    with held_elsewhere(held):
        answers = things.perform(
            (2, None),
            (3, used),
            (4, key("used", body="other")),
            (5, held),
            (6, key("fresh")),
            (7, key("fresh")),
            (8, key("fresh", body="other")),
            (9, None),
        )
    assert things.done == [1, 2, 6, 9]
    assert [answer.status for answer in answers] == [201, 201, 422, 409, 201, 201, 422, 201]
    assert answers[1] == Answer(first.status, first.body, REPLAYED)
    assert answers[5] == Answer(answers[4].status, answers[4].body, REPLAYED)
    assert dict(answers[3].headers).keys() == {b"retry-after"}
    for fresh in (answers[0], answers[4], answers[7]):
        assert fresh.headers == ()
    assert IdempotencyRow.objects.count() == 2
    assert things.perform((5, held))[0].status == 201


@pytest.mark.django_db(transaction=True)
def test_a_caller_does_not_see_anothers_key(things: Things) -> None:
    alice, bob = key(caller="alice"), key(caller="bob", body="other")
    answers = [*things.perform((1, alice)), *things.perform((2, bob))]
    assert [answer.status for answer in answers] == [201, 201]
    with held_elsewhere(key("next", caller="alice")):
        assert things.perform((3, key("next", caller="bob")))[0].status == 201
    assert things.done == [1, 2, 3]


@pytest.mark.django_db(transaction=True)
def test_what_is_kept_is_told_though_its_lock_is_held(things: Things) -> None:
    """Somebody else looks it up just now; that is no reason for a 409."""
    [first] = things.perform((1, key()))
    with held_elsewhere(key()):
        assert things.perform((1, key())) == [Answer(201, first.body, REPLAYED)]


@pytest.mark.django_db(transaction=True)
def test_what_is_told_before_the_body_is_read(things: Things) -> None:
    assert answer_of_used(None) is None
    assert answer_of_used(key()) is None
    with held_elsewhere(key()):
        running = answer_of_used(key())
        assert running is not None
        assert running.status == 409
    [first] = things.perform((1, key()))
    assert answer_of_used(key()) == Answer(201, first.body, REPLAYED)
    given = answer_of_used(key(body="other"))
    assert given is not None
    assert given.status == 422
    age(24.01, key())
    assert answer_of_used(key()) is None


@pytest.mark.django_db(transaction=True)
def test_two_keys_with_one_lock_are_two_keys(things: Things) -> None:
    one = key("one")
    twin = IdempotencyKey(one.id[:16] + "0" * 16, one.fingerprint, one.lock)
    with held_elsewhere(one):
        assert things.perform((1, twin))[0].status == 409
    answers = things.perform((2, one), (3, twin))
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body != answers[1].body


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_fails_keeps_and_holds_nothing(things: Things) -> None:
    requests = [(number, key(str(number))) for number in (1, 2, -3, 4)]
    with pytest.raises(ValueError, match="negative"):
        things.perform(*requests)
    assert IdempotencyRow.objects.count() == 0
    halves = [*things.perform(*requests[:2]), *things.perform(*requests[3:])]
    assert [answer.status for answer in halves] == [201] * 3
    assert {answer.headers for answer in halves} == {()}


@pytest.mark.django_db(transaction=True)
def test_a_lock_ends_with_its_transaction(things: Things) -> None:
    things.perform((1, key()))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchone() == (0,)


@pytest.mark.django_db(transaction=True)
def test_a_row_that_must_not_be_there_stops_the_batch(things: Things) -> None:
    """The primary key is the last guard, behind the locks."""

    def write(numbers: Sequence[int]) -> Change[int]:
        fresh = key()
        with held_elsewhere() as other:
            other.execute(
                "INSERT INTO idempotency_keys (id, fingerprint, status, body)"
                " VALUES (%s, %s, 200, '')",
                [fresh.id, fresh.fingerprint],
            )
        return things.write(numbers)

    with pytest.raises(IntegrityError):
        perform_once([Keyed(1, key())], write=write, answer=things.answer)
    assert IdempotencyRow.objects.get().status == 200


# Statements


def statements(things: Things, *requests: tuple[int, IdempotencyKey | None]) -> int:
    with CaptureQueriesContext(connection) as captured:
        things.perform(*requests)
    return sum(query["sql"] not in ("BEGIN", "COMMIT") for query in captured)


@pytest.mark.django_db(transaction=True)
def test_three_statements_whatever_the_size_and_none_without_keys(things: Things) -> None:
    batches = {
        size: [(number, key(f"{size}-{number}")) for number in range(size)] for size in (1, 2, 100)
    }
    assert {size: statements(things, *batch) for size, batch in batches.items()} == {
        1: 3,
        2: 3,
        100: 3,
    }
    assert statements(things, *batches[100]) == 2  # replays
    assert statements(things, (1, None), (2, None)) == 0
    assert statements(things, (1, None), (2, key("mixed"))) == 3


@pytest.mark.django_db(transaction=True)
def test_two_sessions_at_once_do_each_key_once(things: Things) -> None:
    """Many keys in batches of opposite order: nobody waits for anybody, so nothing can lock up."""
    keys = [key(str(number)) for number in range(40)]
    both = threading.Barrier(4)
    given: list[Answer] = []

    def run(backwards: bool) -> None:
        try:
            both.wait(PATIENCE)
            ordered = keys[::-1] if backwards else keys
            given.extend(things.perform(*((1, each) for each in ordered)))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(bool(number % 2),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(given) == 160
    fresh = [answer for answer in given if answer.status == 201 and not answer.headers]
    assert len(fresh) == len(things.done) == IdempotencyRow.objects.count()
    assert {answer.status for answer in given} <= {201, 409}
