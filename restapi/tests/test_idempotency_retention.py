"""For how long a key is kept, and what the prune lets go."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox.database import jobs
from restapi.answers import Answer
from restapi.models import IdempotencyRow
from restapi.retention import prune_idempotency_keys
from restapi.tasks import prune_idempotency_keys as prune_task
from restapi.tests.keyed_things import REPLAYED, Things, age, held_elsewhere, key


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.mark.django_db(transaction=True)
def test_old_keys_in_a_batch_are_used_again(things: Things) -> None:
    old, young = key("old"), key("young")
    things.perform((1, old), (2, young))
    age(24.01, old)
    age(23.99, young)
    answers = things.perform((3, old), (4, young), (5, key("fresh")))
    assert [answer.headers for answer in answers] == [(), REPLAYED, ()]
    assert things.done == [1, 2, 3, 5]
    [again] = things.perform((6, old))
    assert again == Answer(201, answers[0].body, REPLAYED)


@pytest.mark.django_db(transaction=True)
def test_an_old_key_that_is_held_elsewhere_is_left_alone(things: Things) -> None:
    things.perform((1, key()))
    age(25, key())
    with held_elsewhere(key()):
        assert things.perform((2, key()))[0].status == 409
    assert IdempotencyRow.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_prune_lets_go_of_what_is_old(things: Things) -> None:
    old = [key(f"old {number}") for number in range(25)]
    young = [key(f"young {number}") for number in range(5)]
    things.perform(*((1, each) for each in old + young))
    age(24.01, *old)
    age(23.99, *young)
    with CaptureQueriesContext(connection) as captured:
        assert prune_idempotency_keys(chunk=10) == 25
    assert sum("DELETE" in query["sql"] for query in captured) == 3
    assert {row.id.hex for row in IdempotencyRow.objects.all()} == {each.id for each in young}
    assert jobs.ages()["prune_idempotency_keys"] >= 0


@pytest.mark.django_db(transaction=True)
def test_the_prune_has_a_bound(things: Things) -> None:
    old = [key(f"old {number}") for number in range(25)]
    things.perform(*((1, each) for each in old))
    age(25, *old)
    assert prune_idempotency_keys(chunk=10, seconds=0) == 0
    assert "prune_idempotency_keys" not in jobs.ages()
    assert prune_task() == 25
    assert prune_task() == 0


@pytest.mark.django_db(transaction=True)
def test_the_prune_waits_for_nobody(things: Things) -> None:
    old = [key(f"old {number}") for number in range(3)]
    things.perform(*((1, each) for each in old))
    age(25, *old)
    with held_elsewhere(old[1]):
        assert prune_idempotency_keys() == 2
    assert IdempotencyRow.objects.get().id.hex == old[1].id
    assert prune_idempotency_keys() == 1
