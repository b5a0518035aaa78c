"""Retention of status logs, in small pieces, and the measure of the numberer."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from outbox.database import jobs
from restapi.metrics import UNNUMBERED
from restapi.status_upkeep import measure_status_logs, prune_status_logs

pytestmark = pytest.mark.django_db
LOG = "feeds"


def add(first: int, last: int, *, hours_ago: float, numbered: bool = True) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO feed_log (seq, kind, post_id, author_id, at)"
            " SELECT CASE WHEN %s THEN number END, 'post', number, 'a',"
            "        clock_timestamp() - make_interval(secs => %s)"
            " FROM generate_series(%s::bigint, %s::bigint) AS number",
            (numbered, hours_ago * 3600, first, last),
        )


def kept() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT seq FROM feed_log ORDER BY seq")
        return [seq for (seq,) in cursor.fetchall()]


def test_what_is_old_goes_in_pieces() -> None:
    add(1, 25, hours_ago=25)
    add(26, 30, hours_ago=23)
    add(31, 33, hours_ago=25)  # younger ones lie before them: a transaction that was open for long
    add(0, 1, hours_ago=25, numbered=False)
    assert prune_status_logs(chunk=10) == 25
    assert kept() == [*range(26, 34), None, None]
    assert prune_status_logs(chunk=10) == 0
    assert jobs.read_mark(f"status_log:{LOG}") == 25


def test_it_ends_in_time_and_goes_on() -> None:
    add(1, 100, hours_ago=25)
    assert prune_status_logs(chunk=10, seconds=-1) == 10
    assert "prune_status_logs" not in jobs.ages()
    assert prune_status_logs(chunk=10) == 89
    assert "prune_status_logs" in jobs.ages()


def test_the_highest_number_stays() -> None:
    add(1, 10, hours_ago=1000)
    prune_status_logs()
    assert kept() == [10]


def test_a_log_that_began_anew_is_pruned_again() -> None:
    add(1, 10, hours_ago=25)
    prune_status_logs()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM feed_log")
    add(1, 5, hours_ago=25)
    prune_status_logs()
    prune_status_logs()
    assert kept() == [5]


def test_the_oldest_without_a_number_is_measured() -> None:
    def measured() -> float:
        measure_status_logs()
        return float(UNNUMBERED.labels(LOG)._value.get())

    assert measured() == 0
    add(1, 1, hours_ago=2)
    assert measured() == 0
    add(1, 1, hours_ago=1, numbered=False)
    assert 3600 <= measured() < 7200
