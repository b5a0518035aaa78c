"""No news is not green: of an app that cannot be read, and of a relay that is silent or gone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from operations.judge import GREY_AFTER, RED_AFTER, Judge, Station, worst
from operations.management.commands.ops import EXIT_CODES
from operations.pages import as_json, live_part
from operations.pipeline import ask_postgres
from operations.reading import answered
from operations.snapshot import Heard, Snapshot, take
from operations.terminal import rendered
from operations.tests.test_judge import Clock
from operations.tests.well import PROCESSES, postgres, process, redis, rising, snapshot
from outbox.process.health import ReadinessAnswer
from outbox.process.heartbeat import SeenProcess
from outbox.upkeep.gauges import Backlog
from outbox.watching import WITHOUT, Alarm

WHY = "canceling statement due to statement timeout"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def judge() -> Judge:
    return Judge(settings.WIRING.alarms)


def told_everywhere(told: Snapshot, state: str) -> None:
    """The app's name and the state: on the page, in the terminal and in the JSON."""
    assert told.state == state
    assert "notifications cannot be read" in told.sentence
    page = live_part(told, frozenset())
    assert f'class="banner {state}"' in page
    assert f'<li class="{state}"><strong>notifications</strong>' in page
    terminal = rendered(told, colour=False)
    assert terminal.startswith(state.upper())
    assert "notifications: no news for" in terminal
    answer = as_json(told, letters=True)
    assert answer["state"] == state
    assert [(each["name"], each["state"]) for each in answer["unread"]] == [
        ("notifications", state)
    ]
    assert EXIT_CODES[told.state] != 0


def test_an_app_that_cannot_be_read_is_grey_and_then_red(judge: Judge, clock: Clock) -> None:
    assert snapshot(judge).state == "green"
    told_everywhere(snapshot(judge, failed={"notifications": WHY}), "grey")
    clock.now += RED_AFTER + 1
    told_everywhere(snapshot(judge, failed={"notifications": WHY}), "red")
    assert snapshot(judge).state == "green"
    clock.now += RED_AFTER + 1
    told_everywhere(snapshot(judge, failed={"notifications": WHY}), "grey")


@pytest.fixture
def a_table_is_missing(transactional_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notification_holds RENAME TO taken_away")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE taken_away RENAME TO notification_holds")


@pytest.mark.usefixtures("a_table_is_missing")
def test_it_is_so_where_postgresql_refuses_the_app_its_table(judge: Judge) -> None:
    told_everywhere(snapshot(judge, failed=ask_postgres(Backlog()).failed), "grey")


WELL = {
    "relay_consuming": 1.0,
    "relay_kafka_up": 1.0,
    "in_flight_events": 3.0,
    "relay_queue_messages": 4.0,
}


def card(judge: Judge, *relays: SeenProcess) -> Station:
    """Of the relay, where one has run."""
    told = snapshot(judge, from_redis=redis([*PROCESSES, *relays], kinds=["relay"]))
    [found] = [station for station in told.stations if station.hop.group == "relay"]
    return found


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("age", "state"),
    [
        (GREY_AFTER - 1, "green"),
        (GREY_AFTER + 1, "grey"),
        (RED_AFTER - 1, "grey"),
        (RED_AFTER + 1, "red"),
    ],
)
def test_the_card_of_a_relay_is_as_old_as_its_heartbeat(
    judge: Judge, age: float, state: str
) -> None:
    found = card(judge, process("relay", age=age, **WELL))
    assert found.state == state
    assert found.age == pytest.approx(age)
    assert ("no relay says that it runs" in found.reason) == (state != "green")
    assert found.hop.waits == 7


def test_one_that_speaks_is_enough(judge: Judge, clock: Clock) -> None:
    silent = process("relay", age=RED_AFTER + 1, relay_consuming=0.0, relay_kafka_up=0.0)
    assert card(judge, silent, process("relay", **WELL)).state == "green"


def test_a_relay_that_is_gone_is_grey_and_then_red(judge: Judge, clock: Clock) -> None:
    assert card(judge, process("relay", **WELL)).state == "green"
    gone = card(judge)
    assert (gone.state, gone.hop.waits) == ("grey", None)
    clock.now += RED_AFTER + 1
    assert card(judge).state == "red"
    assert card(judge, process("relay", **WELL)).state == "green"
    assert card(judge).state == "grey"


def test_what_lies_in_rabbitmq_is_on_the_card_and_an_alarm(judge: Judge, clock: Clock) -> None:
    more = {**WELL, "relay_queue_messages": 2000.0, "relay_dead_letter_queue_messages": 0.0}
    found = card(judge, process("relay", **more))
    assert (found.state, found.hop.waits) == ("green", 2003)
    assert found.hop.notes == ("2,000 in RabbitMQ, 3 on the way to Kafka", "0 dead letters")
    more["relay_dead_letter_queue_messages"] = 5.0
    found = card(judge, process("relay", **more), process("relay", **more))
    assert [(alert.name, alert.is_on) for alert in found.alerts] == [("RelayDeadLettersWait", True)]
    assert "5 messages lie in the dead-letter queue" in found.alerts[0].sentence
    unknown = {"relay_consuming": 1.0, "relay_kafka_up": 1.0, "in_flight_events": 3.0}
    found = card(judge, process("relay", **unknown))
    assert (found.hop.waits, found.hop.notes[0]) == (None, "? in RabbitMQ, 3 on the way to Kafka")
    for _ in range(3):
        clock.now += 2
        more["relay_queue_messages"] += 100
        found = card(judge, process("relay", **more))
    assert {alert.name for alert in found.alerts} == {"RelayBacklogGrowing", "RelayDeadLettersWait"}


def test_counters_of_relays_raise_their_alarms(judge: Judge) -> None:
    def relay(age: float, **risen: float) -> SeenProcess:
        return rising(process("relay", age=age, **WELL), **risen)

    assert card(judge, relay(1)).state == "green"
    found = card(
        judge, relay(1, dead_letter_total=1), relay(GREY_AFTER + 1, dedupe_unavailable_total=2)
    )
    assert {alert.name: alert.is_on for alert in found.alerts} == {
        "RelayDeadLetters": True,
        "RelayWithoutDedupe": False,
    }
    silent = relay(301, dedupe_unavailable_total=2)
    assert not card(judge, relay(1), silent).alerts, "it was longer ago than the alarm asks"


@pytest.mark.parametrize(
    "alarm", [each for each in settings.WIRING.alarms if each.rises], ids=lambda each: each.name
)
def test_counters_of_processes_are_judged_on_the_page(judge: Judge, alarm: Alarm) -> None:
    def told(by: float) -> Snapshot:
        others = [rising(process("web"), **{alarm.figure: by / 2}), *PROCESSES]
        relay = rising(process("relay", **WELL), **{alarm.figure: by / 2})
        return snapshot(judge, from_redis=redis([*others, relay]))

    assert told(0).state == "green"
    found = {alert.name: alert.state for alert in told(4 * (alarm.bound + 1)).alerts}
    assert found[alarm.name] == ("red" if alarm.critical and not alarm.seconds else "amber")


@pytest.mark.parametrize("away", [set(each) for n in range(4) for each in combinations(WITHOUT, n)])
def test_page_and_readiness_say_the_same_of_the_servers(
    judge: Judge, clock: Clock, away: set[str]
) -> None:
    said = {name: "unhealthy" if name in away else "healthy" for name in WITHOUT}
    readiness = ReadinessAnswer(said).status
    values: dict[str, Any] = {"database": postgres(), "redis": redis(), "kafka": {}}
    for seconds in (0.0, GREY_AFTER + 1, RED_AFTER + 1):
        silent = {name: answered(values[name]).failed("no answer") for name in away}
        clock.now += seconds
        heard = {name: silent.get(name) or answered(value) for name, value in values.items()}
        told = take(
            Heard(postgres=heard["database"], redis=heard["redis"], kafka=heard["kafka"]),
            judge,
        )
        page = worst(server.state for server in told.servers)
        if seconds > RED_AFTER and away:
            assert page == "red", "no news for so long is red, whatever it is about"
        else:
            assert page == {"ready": "green", "degraded": "amber", "not ready": "red"}[readiness]
