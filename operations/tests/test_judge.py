"""Green, grey, amber, red: each threshold, the time that it must have held, and the age of a number."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.conf import settings

from operations import judge as judging
from operations.judge import GREY_AFTER, RED_AFTER, Judge, Station, by_age, worst
from operations.reading import Reading, answered
from outbox.watching import AMBER, GREEN, GREY, RED, Alarm, Hop

ALARMS: tuple[Alarm, ...] = settings.WIRING.alarms


class Clock:
    """Moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def station(judge: Judge, alarm: Alarm, value: float, **more: Any) -> Station:
    hop = Hop(name="here", group="there", figures={alarm.figure: value}, **more)
    return judge.judge(hop, [answered(0)])


def over(alarm: Alarm) -> float:
    """A value at which it is met, but only just."""
    return alarm.bound if alarm.at else alarm.bound + 0.001


def well(alarm: Alarm) -> float:
    return alarm.bound + 1 if alarm.at else alarm.bound


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_each_alarm_comes_when_its_threshold_has_been_crossed_for_its_time(
    alarm: Alarm, clock: Clock
) -> None:
    judge = Judge(ALARMS)
    ends = RED if alarm.critical else AMBER
    assert station(judge, alarm, well(alarm)).state == GREEN
    rises = 0.001 if alarm.growing else 0.0
    if alarm.seconds:
        clock.now += 2
        before = station(judge, alarm, over(alarm) + rises)
        assert before.state == AMBER
        assert [alert.is_on for alert in before.alerts] == [False]
        clock.now += alarm.seconds - 1
        assert not station(judge, alarm, over(alarm) + 2 * rises).alerts[0].is_on
        clock.now += 1.5
    [alert] = station(judge, alarm, over(alarm) + 3 * rises).alerts
    assert (alert.name, alert.is_on, alert.state) == (alarm.name, True, ends)
    assert "{" not in alert.sentence
    assert station(judge, alarm, well(alarm)).state == GREEN


def test_what_ends_in_between_begins_anew(clock: Clock) -> None:
    alarm = Alarm(name="A", figure="a", bound=1, seconds=60, critical=True, sentence="")
    judge = Judge([alarm])
    station(judge, alarm, 2)
    clock.now += 59
    station(judge, alarm, 1)
    clock.now += 10
    assert station(judge, alarm, 2).state == AMBER
    clock.now += 59
    assert station(judge, alarm, 2).state == AMBER
    clock.now += 1
    assert station(judge, alarm, 2).state == RED


def test_an_age_says_itself_how_long_it_has_been_too_high(clock: Clock) -> None:
    """So a command that looks once knows it too."""
    alarm = Alarm(name="A", figure="a_seconds", bound=30, seconds=60, critical=True, sentence="")
    assert station(Judge([alarm]), alarm, 89.9).state == AMBER
    assert station(Judge([alarm]), alarm, 90.1).state == RED


def test_so_does_a_figure_whose_beginning_is_known(clock: Clock) -> None:
    alarm = Alarm(name="A", figure="paused", bound=0, seconds=1800, sentence="")
    [early] = station(Judge([alarm]), alarm, 1, since={"paused": 1700}).alerts
    assert (early.is_on, early.left) == (False, 100)
    [late] = station(Judge([alarm]), alarm, 1, since={"paused": 1801}).alerts
    assert late.is_on


def test_a_number_that_was_counted_to_its_bound_has_a_plus(clock: Clock) -> None:
    alarm = next(each for each in ALARMS if each.name == "DeadLetters")
    sentences = [
        station(Judge(ALARMS), alarm, value, counted=10_000).alerts[0].sentence
        for value in (9_999, 10_000)
    ]
    assert sentences == [alarm.sentence.format(value=value) for value in ("9,999", "10,000+")]


def test_a_backlog_that_shrinks_is_none_that_grows(clock: Clock) -> None:
    alarm = Alarm(name="A", figure="a", bound=1000, growing=True, sentence="")
    judge = Judge([alarm])
    for value in (5000, 4000, 3000):
        clock.now += 5
        assert station(judge, alarm, value).state == GREEN
    clock.now += 5
    assert station(judge, alarm, 6000).state == AMBER


def test_no_news_is_not_green(clock: Clock) -> None:
    judge = Judge([])
    hop = Hop(name="here", group="there", waits=0)
    reading = answered(0)
    for age, state in (
        (GREY_AFTER, GREEN),
        (GREY_AFTER + 0.1, GREY),
        (RED_AFTER, GREY),
        (RED_AFTER + 0.1, RED),
    ):
        clock.now = reading.read_at + age
        silent = reading.failed("no answer")
        assert judge.judge(hop, [reading]).state == state
        seen = judge.judge(hop, [answered(0), reading])
        assert seen.state == state
        assert seen.age == pytest.approx(age)
        assert ("no answer" in by_age(silent)[1]) == (by_age(silent)[0] != GREEN)


def test_a_server_that_was_never_heard_is_grey_and_then_red(clock: Clock) -> None:
    reading = Reading[int].begun()
    assert by_age(reading)[0] == GREY
    clock.now += RED_AFTER + 1
    assert by_age(reading)[0] == RED


def test_a_rate_is_made_of_the_last_minute(clock: Clock) -> None:
    judge = Judge([])
    rates = []
    for done in (0, 100, 200, 200, 200):
        rates.append(judge.judge(Hop(name="h", group="g", done=done), [answered(0)]).rate)
        clock.now += 30
    assert rates[0] is None
    assert rates[1:3] == [pytest.approx(100 / 30)] * 2
    assert rates[4] == 0


def test_what_is_remembered_has_a_bound(clock: Clock) -> None:
    judge = Judge([])
    for number in range(5000):
        clock.now += 1
        judge.note("s", number, clock.now)
    assert len(judge._series["s"]) <= judging.GROWING_SECONDS / judging._SPACING + 2


def test_the_worst_counts() -> None:
    assert worst([]) == GREEN
    assert worst([GREEN, GREY]) == GREY
    assert worst([RED, GREY, AMBER]) == RED
    assert worst([GREY, AMBER]) == AMBER
