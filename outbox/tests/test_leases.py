"""Leases on rows, on a table of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from devtools.testing.patience import PATIENCE
from outbox.database.leases import Lease, Leases

LEASES = Leases(table="leased_row", due="due_at", number="begun", open="state = 0")
LONG = 60.0

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def rows() -> Iterator[None]:
    """Three rows that are due, the third one for the longest time."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE leased_row (id bigint PRIMARY KEY, due_at timestamptz NOT NULL,"
            " begun bigint NOT NULL DEFAULT 0, state int NOT NULL DEFAULT 0, note text)"
        )
        cursor.execute(
            "INSERT INTO leased_row (id, due_at)"
            " SELECT i, clock_timestamp() - make_interval(secs => i) FROM generate_series(1, 3) AS i"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE leased_row")


def ids(leases: list[Lease]) -> list[int]:
    return [lease.id for lease in leases]


def notes() -> dict[int, str | None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, note FROM leased_row")
        return dict(cursor.fetchall())


def end_leases() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE leased_row SET due_at = clock_timestamp()")


def test_the_longest_waiting_come_first_and_nobody_gets_them_again() -> None:
    assert ids(LEASES.claim(2, seconds=LONG)) == [2, 3]
    assert ids(LEASES.claim(5, seconds=LONG)) == [1]
    assert LEASES.claim(5, seconds=LONG) == []


def test_a_condition_narrows_the_claim() -> None:
    assert ids(LEASES.claim(5, seconds=LONG, where="id < %s", parameters=(3,))) == [1, 2]


def test_rows_that_are_done_are_not_claimed() -> None:
    LEASES.write_back(LEASES.claim(2, seconds=LONG), "state = 1")
    end_leases()
    assert ids(LEASES.claim(5, seconds=LONG)) == [1]


def test_two_claims_at_once_share_the_rows() -> None:
    """Neither waits for the other, and none of them gets a row twice."""
    held, go_on = threading.Event(), threading.Event()
    first: list[Lease] = []

    def claim_and_wait() -> None:
        try:
            with transaction.atomic():
                first.extend(LEASES.claim(2, seconds=LONG))
                held.set()
                assert go_on.wait(PATIENCE)
        finally:
            connection.close()

    other = threading.Thread(target=claim_and_wait)
    other.start()
    assert held.wait(PATIENCE)
    second = LEASES.claim(5, seconds=LONG)
    go_on.set()
    other.join()
    assert (ids(first), ids(second)) == ([2, 3], [1])


class TestALeaseThatIsOver:
    def test_is_taken_over_and_the_first_holder_writes_nothing(self) -> None:
        late = LEASES.claim(3, seconds=0.0)
        taken = LEASES.claim(1, seconds=LONG)
        assert LEASES.write_back(late, "note = %s", ["late"]) == [1, 2]
        assert ids(LEASES.renew(late, seconds=LONG)) == [1, 2]
        assert LEASES.write_back(taken, "note = %s", ["in time"]) == [3]
        assert notes() == {1: "late", 2: "late", 3: "in time"}

    def test_that_nobody_took_is_still_mine(self) -> None:
        """Its number is still the lease's: nobody has begun with the row."""
        leases = LEASES.claim(1, seconds=0.0)
        assert ids(LEASES.renew(leases, seconds=LONG)) == ids(leases)
        assert 3 not in ids(LEASES.claim(5, seconds=LONG))

    def test_is_not_given_back_by_who_lost_it(self) -> None:
        late = LEASES.claim(3, seconds=0.0)
        LEASES.claim(3, seconds=LONG)
        assert LEASES.give_back(late) == []
        assert LEASES.claim(3, seconds=LONG) == []


def test_what_is_given_back_can_be_claimed_once_its_pause_is_over() -> None:
    leases = LEASES.claim(3, seconds=LONG)
    assert LEASES.give_back(leases[:1]) == [1]
    assert LEASES.give_back(leases[1:2], after=LONG) == [2]
    assert ids(LEASES.claim(3, seconds=LONG)) == [1]


def test_a_copy_of_a_claim_begins_nothing_twice() -> None:
    claimed = LEASES.claim(1, seconds=LONG, begin=False)
    [begun] = LEASES.renew(claimed, seconds=LONG, begin=True)
    assert begun.number == claimed[0].number + 1
    assert LEASES.renew(claimed, seconds=LONG, begin=True) == []
    assert LEASES.write_back([begun], "state = 1") == [3]


def test_the_holder_believes_to_have_less_time_than_it_has() -> None:
    before = time.monotonic()
    [lease] = LEASES.claim(1, seconds=LONG)
    assert before + LONG <= lease.until <= time.monotonic() + LONG
    assert lease.still_mine_for(LONG / 2)
    assert not lease.still_mine_for(LONG + 1)
    assert not Lease(1, 1).still_mine_for(0.0)
