"""The first look at a process that nobody has looked at, while servers are away: the contract gives it two
seconds. It knows nothing yet, so it waits for the servers, and it draws the page for the first time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from devtools.testing.weather import Fault
from devtools.testing.web import Answer
from operations.tests.away import ANSWERED_WITHIN, BEARER, Weather, weathered
from operations.tests.people import cookie_of, staff
from operations.viewers import ASKED_AGAIN_SECONDS

TRIES = 3  # processes, each looked at once: others have this machine too


@dataclass(frozen=True)
class FirstLook:
    """How long it took, in seconds, what came, and what the page has to say of the process."""

    took: float
    page: Answer
    row: bytes


def looked_at(weather: Weather, headers: dict[str, str]) -> FirstLook:
    begun = time.monotonic()
    page = weather.web.get("/ops/", **headers)
    return FirstLook(time.monotonic() - begun, page, weather.row)


def first_look(away: Sequence[str], fault: Fault) -> FirstLook:
    """With the token, at a new process that has lost these servers."""
    with weathered() as weather:
        for each in away:
            getattr(weather, each).set(fault)
        return looked_at(weather, BEARER)


@pytest.mark.parametrize(
    ("away", "fault"),
    [
        (("redis",), Fault.SILENT),
        (("postgres", "redis"), Fault.SILENT),
        (("postgres", "redis"), Fault.AWAY),
    ],
)
def test_it_is_answered_in_time(away: Sequence[str], fault: Fault, transactional_db: None) -> None:
    for _ in range(TRIES):
        look = first_look(away, fault)
        assert look.page.status == 200
        assert look.row in look.page.body, "of itself the process knows without a server"
        is_whole = "postgres" in away or b"fan-out" in look.page.body
        if look.took < ANSWERED_WITHIN and is_whole:
            return
    raise AssertionError(f"the last of {TRIES} took {look.took:.2f} s; pipeline: {is_whole}")


def test_so_it_is_for_somebody_of_whom_postgresql_must_be_asked(transactional_db: None) -> None:
    """The longest way: PostgreSQL is silent when it is asked who looks, and then when it is asked how
    things stand."""
    headers = cookie_of(staff("viewer"))
    for _ in range(TRIES):
        with weathered() as weather:
            # Known, although nobody has looked at how things stand.
            assert weather.web.get("/ops/done/77", **headers).status == 404
            time.sleep(ASKED_AGAIN_SECONDS)
            weather.postgres.set(Fault.SILENT)
            look = looked_at(weather, headers)
        assert look.page.status == 200
        assert look.row in look.page.body, "Redis has the table of processes"
        if look.took < ANSWERED_WITHIN:
            return
    raise AssertionError(f"the last of {TRIES} took {look.took:.2f} s")
