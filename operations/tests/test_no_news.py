"""No news is not green: of an app that cannot be read, and of a relay that is silent or gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from operations import words
from operations.judge import GREY_AFTER, RED_AFTER, Judge, Station, worst
from operations.letters import LetterGroup
from operations.management.commands.ops import EXIT_CODES
from operations.pages import LETTERS, as_json, charts_part, live_part
from operations.past import LATE_SECONDS, MinuteFigures, Past, PastReader, Row, write
from operations.pipeline import FromPostgres, ask_postgres
from operations.reading import Reading, answered
from operations.snapshot import Heard, Snapshot, take
from operations.terminal import rendered
from operations.tests.test_judge import Clock
from operations.tests.well import (
    PROCESSES,
    heard,
    judged,
    postgres,
    process,
    redis,
    rising,
    snapshot,
)
from operations.time_left import Deadline
from outbox.database.ask import rows_of
from outbox.envelope import rfc3339
from outbox.models import OperatorAction
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


def told_everywhere(shown: Snapshot, state: str) -> None:
    """The app's name and the state: on the page, in the terminal and in the JSON."""
    assert shown.state == state
    assert "notifications cannot be read" in shown.sentence
    page = live_part(shown, frozenset())
    assert f'class="banner {state}"' in page
    assert f'<li class="{state}"><strong>notifications</strong>' in page
    terminal = rendered(shown, colour=False)
    assert terminal.startswith(state.upper())
    assert "notifications: no data for" in terminal
    answer = as_json(shown, letters=True)
    assert answer["state"] == state
    assert [(each["name"], each["state"]) for each in answer["unread"]] == [
        ("notifications", state)
    ]
    assert EXIT_CODES[shown.state] != 0


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
    shown = snapshot(judge, from_redis=redis([*PROCESSES, *relays], kinds=["relay"]))
    [found] = [station for station in shown.stations if station.hop.group == "relay"]
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
    assert ("no relay sends heartbeats" in found.reason) == (state != "green")
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
    assert "Messages in the dead-letter queue: 5." in found.alerts[0].sentence
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
    def shown(by: float) -> Snapshot:
        others = [rising(process("web"), **{alarm.figure: by / 2}), *PROCESSES]
        relay = rising(process("relay", **WELL), **{alarm.figure: by / 2})
        return snapshot(judge, from_redis=redis([*others, relay]))

    assert shown(0).state == "green"
    found = {alert.name: alert.state for alert in shown(4 * (alarm.bound + 1)).alerts}
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
        shown = take(
            Heard(postgres=heard["database"], redis=heard["redis"], kafka=heard["kafka"]),
            judge,
        )
        page = worst(server.state for server in shown.servers)
        if seconds > RED_AFTER and away:
            assert page == "red", "no news for so long is red, whatever it is about"
        else:
            assert page == {"ready": "green", "degraded": "amber", "not ready": "red"}[readiness]


# -- what a server told last -------------------------------------------------------------------

REFUSED = "Connection refused"
AWAY = [(16.0, "grey"), (61.0, "red")]


def part(page: str, heading: str) -> str:
    """The HTML of one section."""
    [found] = [each for each in page.split("<section")[1:] if f">{heading}</h2>" in each]
    return found


@pytest.fixture
def full(clock: Clock) -> FromPostgres:
    """With letters, actions and a past whose newest row is from now."""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    entry = OperatorAction(1, noon, "ada", "pause", "handler x", "a look", 1, 1, 0, noon, "")
    letters = [LetterGroup(handler="record_sales", error="boom", letters=1, oldest=1.0, like="9")]
    row = Row(noon, MinuteFigures(series={"pipeline/outbox#waits": 17.0}))
    past = Past(rows=[row], clock=noon, read_at=clock.now)
    return postgres(letters=letters, actions=[entry], past=past)


@pytest.mark.parametrize(("seconds", "state"), AWAY)
def test_all_that_postgresql_told_last_is_as_old_as_its_answer(
    judge: Judge, clock: Clock, full: FromPostgres, seconds: float, state: str
) -> None:
    before = heard(from_postgres=full)
    assert judged(judge, before).state == "green"
    silent = before.postgres.failed(REFUSED)
    clock.now += seconds
    shown = judged(judge, replace(heard(), postgres=silent))
    [left] = [each for each in shown.deadlines if each.name == "transaction ids"]
    assert (left.state, left.age) == (state, seconds)
    [disk] = [each for each in shown.deadlines if each.name == "disk of here"]
    assert (disk.state, disk.age) == ("green", 1.0), "Redis answers"

    page, answer = live_part(shown, frozenset({LETTERS})), as_json(shown, letters=True)
    why = f"no data for {words.span(seconds)}: {REFUSED}"
    age = f'<p class="read {state}">read {words.span(seconds)} ago; {why}</p>'
    for heading in ("Dead letters, by handler and error", "Who did what"):
        assert age in part(page, heading), heading
    assert age in page[page.index('data-part="charted"') : page.index('data-part="rest"')]
    row = f'<tr class="{state}"><th scope="row">transaction ids</th><td class="state">{state}</td>'
    assert row in part(page, "Time left")
    assert why in part(page, "Time left")

    terminal = rendered(shown, colour=False)
    assert terminal.count(f"read {words.span(seconds)} ago; {why}") == 3

    news = {"state": state, "age": seconds, "reason": why}
    assert answer["read"] == {"deadLetters": news, "actions": news, "past": news}
    ages = {each["name"]: (each["age"], each["state"]) for each in answer["timeLeft"]}
    assert ages["transaction ids"] == (seconds, state)
    assert ages["disk of here"] == (1.0, "green")


@pytest.mark.parametrize(("seconds", "state"), AWAY)
def test_a_disk_is_known_as_long_as_a_process_there_speaks(
    judge: Judge, clock: Clock, seconds: float, state: str
) -> None:
    def disk(*processes: SeenProcess) -> Deadline:
        shown = snapshot(judge, from_redis=redis(processes))
        [found] = [each for each in shown.deadlines if each.name == "disk of here"]
        return found

    silent = process("web", age=seconds)
    found = disk(silent)
    assert (found.state, found.age) == (state, seconds)
    assert "no process there sends heartbeats" in found.reason
    assert disk(process("beat"), silent, process("bridge", age=3.0)).age == 1.0


@pytest.mark.parametrize(("seconds", "state"), AWAY)
def test_a_heartbeat_grows_old_with_the_answer_that_told_it(
    judge: Judge, clock: Clock, seconds: float, state: str
) -> None:
    silent = heard().redis.failed(REFUSED)
    clock.now += seconds
    for row in judged(judge, replace(heard(), redis=silent)).processes:
        assert (row.state, row.age) == (state, seconds + 1.0)
        assert REFUSED in row.reason


def test_the_page_is_of_the_time_of_its_oldest_answer_and_each_card_has_its_age(
    judge: Judge, clock: Clock
) -> None:
    kafka = heard().kafka
    clock.now += 4.0
    redis = heard().redis
    clock.now += 3.0
    shown = judged(judge, replace(heard(), kafka=kafka, redis=redis))
    assert shown.as_of == shown.at - timedelta(seconds=7)
    as_of = rfc3339(shown.as_of)
    page, terminal = live_part(shown, frozenset()), rendered(shown, colour=False)
    assert f'as of <time datetime="{as_of}">' in page
    assert f"as of {as_of}" in terminal
    assert as_json(shown, letters=True)["asOf"] == as_of
    cards = page.split('<p class="name">')[1:]
    for name, age in (("tasks", "3.0 s"), ("accepted", "0.0 s")):
        [card] = [each for each in cards if each.startswith(name)]
        assert f"<dt>age</dt><dd>{age}</dd>" in card


def test_before_any_server_has_answered_the_page_is_of_no_time(judge: Judge) -> None:
    never = Heard(postgres=Reading.begun(), redis=Reading.begun(), kafka=Reading.begun())
    shown = judged(judge, never)
    assert shown.as_of is None
    assert "no server has answered yet" in live_part(shown, frozenset())
    assert "no server has answered yet" in rendered(shown, colour=False)
    assert as_json(shown, letters=True)["asOf"] is None


def test_charts_end_at_the_clock_and_say_how_old_their_last_row_is(
    judge: Judge, clock: Clock
) -> None:
    """Beat or the worker that writes the rows has stopped: everything else goes on."""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    rows = [
        Row(
            noon - timedelta(minutes=ago),
            MinuteFigures(series={"pipeline/outbox#waits": 10.0 + ago}),
        )
        for ago in (2, 1, 0)
    ]
    past = Past(rows=rows, clock=noon, read_at=clock.now)

    def later(seconds: float) -> Snapshot:
        clock.now = past.read_at + seconds
        return snapshot(judge, from_postgres=postgres(past=past))

    for seconds in (0, LATE_SECONDS):
        shown = later(seconds)
        assert (shown.state, shown.charted.state) == ("green", "green")
        picture = as_json(shown, letters=True)["past"]
        assert picture["until"][-1] == "2026-03-01T12:00:00.000Z"
        assert picture["charts"][0]["lines"][0]["values"][-3:] == [12.0, 11.0, 10.0]
        assert "10 now" in charts_part(shown, "hour")

    shown = later(600)
    assert (shown.state, shown.charted.state) == ("grey", "grey")
    picture = as_json(shown, letters=True)["past"]
    assert picture["until"][-1] == "2026-03-01T12:10:00.000Z"
    values = picture["charts"][0]["lines"][0]["values"]
    assert values[-13:] == [12.0, 11.0, 10.0, *[None] * 10]
    assert "? now" in charts_part(shown, "hour")
    assert "10 now" not in charts_part(shown, "hour")
    said = '<p class="read grey">read 0.0 s ago; last row 10 min ago</p>'
    assert said in live_part(shown, frozenset())
    assert "last row 10 min ago" in rendered(shown, colour=False)

    shown = later(7200)
    assert "last row 2 h ago" in live_part(shown, frozenset())
    assert not as_json(shown, letters=True)["past"]["charts"], "nothing is known of the last hour"
    day = as_json(shown, span="day", letters=True)["past"]["charts"][0]["lines"][0]["values"]
    assert day[-13:] == [12.0, *[None] * 12]


@pytest.mark.django_db(transaction=True)
def test_the_clock_of_the_charts_is_that_of_postgresql() -> None:
    [[now]] = rows_of("SELECT date_trunc('minute', clock_timestamp())")
    write(now - timedelta(minutes=30), MinuteFigures())
    read = PastReader().read()
    assert read.late >= 30 * 60
    assert read.end is not None
    assert read.end >= now
    write(now, MinuteFigures())
    assert PastReader().read().late == 0
