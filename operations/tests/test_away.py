"""The page while servers are away, or there and silent: it answers within two seconds, and says so.
Who looks first: test_first_look.py."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.testing.pipeline import settles
from devtools.testing.weather import Fault
from devtools.testing.web import Answer, Web
from operations.tests.away import ANSWERED_WITHIN, BEARER, Weather, weathered
from operations.tests.people import cookie_of, staff
from outbox.process.heartbeat import Heartbeat

TRIES = 5


@pytest.fixture(scope="module")
def weather_of_module(django_db_setup: None) -> Iterator[Weather]:
    with weathered() as started:
        yield started


@pytest.fixture
def weather(weather_of_module: Weather, transactional_db: None) -> Iterator[Weather]:
    weather_of_module.clear()
    yield weather_of_module
    weather_of_module.clear()


def in_time(web: Web, path: str, **headers: str) -> Answer:
    """The answer, the quickest of a few: others have this machine too."""
    quickest = float("inf")
    for _ in range(TRIES):
        begun = time.monotonic()
        answer = web.get(path, **headers)
        quickest = min(quickest, time.monotonic() - begun)
        if quickest < ANSWERED_WITHIN:
            return answer
    raise AssertionError(f"{path} took {quickest:.1f} s at best")


def status(web: Web) -> dict[str, Any]:
    words: dict[str, Any] = in_time(web, "/ops/status.json", **BEARER).json
    return words


def server(web: Web, name: str) -> dict[str, Any]:
    return next(each for each in status(web)["servers"] if each["name"] == name)


def state_of(web: Web, pid: int) -> str:
    """In the table of processes; empty if it is not there."""
    return "".join(each["state"] for each in status(web)["processes"] if each["pid"] == pid)


def test_kafka_away_hides_nothing_else(weather: Weather) -> None:
    assert settles(lambda: bool(server(weather.web, "Kafka")["reason"]))
    assert "KafkaError" not in server(weather.web, "Kafka")["reason"], "its words, not its object"
    answer = status(weather.web)
    names = {hop["name"] for hop in answer["hops"]}
    assert {"outbox", "record_sales", "fan-out", "running"} <= names
    assert answer["state"] in {"amber", "red"}
    [handler] = [hop for hop in answer["hops"] if hop["name"] == "record_sales"]
    assert handler["waits"] is None
    assert handler["state"] != "green"
    assert settles(lambda: server(weather.web, "PostgreSQL")["state"] == "green")


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.SILENT])
def test_without_postgresql_those_who_are_known_and_the_token_go_on(
    weather: Weather, fault: Fault
) -> None:
    headers = cookie_of(staff("viewer"))
    others = cookie_of(staff("other"))
    assert settles(lambda: server(weather.web, "PostgreSQL")["state"] == "green")
    assert weather.web.get("/ops/", **headers).status == 200
    weather.postgres.set(fault)
    assert settles(lambda: bool(server(weather.web, "PostgreSQL")["reason"]))

    page = in_time(weather.web, "/ops/", **headers)
    assert page.status == 200
    assert b"PostgreSQL" in page.body
    assert b"fan-out" in page.body, "what was heard last is still there, with its age"
    assert weather.row in page.body, "Redis has the table of processes"
    assert b'class="banner red"' in page.body
    assert in_time(weather.web, "/ops/", **BEARER).status == 200
    unknown = in_time(weather.web, "/ops/", **others)
    assert unknown.status == 503
    assert b'name="token"' in unknown.body
    assert in_time(weather.web, "/ops/live", **others).status == 503

    weather.postgres.set(Fault.AWAY)  # silent connections would stay so
    weather.postgres.set(Fault.NONE)
    assert settles(lambda: server(weather.web, "PostgreSQL")["state"] == "green")
    assert settles(lambda: weather.web.get("/ops/", **others).status == 200)


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.SILENT])
def test_without_redis_the_pipeline_is_still_told(weather: Weather, fault: Fault) -> None:
    assert settles(lambda: server(weather.web, "Redis")["state"] == "green")
    weather.redis.set(fault)
    assert settles(lambda: bool(server(weather.web, "Redis")["reason"]))
    assert server(weather.web, "Redis")["state"] in {"amber", "red"}
    answer = status(weather.web)
    [outbox] = [hop for hop in answer["hops"] if hop["name"] == "outbox"]
    assert outbox["state"] == "green"
    assert outbox["age"] < 15
    page = in_time(weather.web, "/ops/", **BEARER)
    assert page.status == 200
    assert re.search(rb"Redis (is|and Kafka are) unavailable", page.body)
    assert b"fan-out" in page.body
    assert weather.row in page.body
    weather.redis.set(Fault.AWAY)
    weather.redis.set(Fault.NONE)
    assert settles(lambda: server(weather.web, "Redis")["state"] == "green")


def test_everything_away(weather: Weather) -> None:
    other = Heartbeat("beat")

    def is_seen() -> bool:
        other.beat()
        return state_of(weather.web, os.getpid()) == "green"

    assert settles(is_seen)
    weather.postgres.set(Fault.AWAY)
    weather.redis.set(Fault.AWAY)
    assert settles(lambda: all(each["reason"] for each in status(weather.web)["servers"]))
    assert status(weather.web)["state"] == "red"
    page = in_time(weather.web, "/ops/", **BEARER)
    assert page.status == 200
    assert f"pid {os.getpid()} on".encode() in page.body
    assert state_of(weather.web, weather.web.process.pid) == "green", "it knows itself"
    # What others said last is there, and grows old.
    assert settles(lambda: state_of(weather.web, os.getpid()) == "grey")
    other.end()
