"""The last day: a row a minute, what it is made of, and what becomes of it in a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from devtools.testing.heartbeats import forget_heartbeats
from devtools.testing.histories import place
from devtools.testing.posts import create_posts, new_post
from operations import charts, minute, past
from operations.charts import CHARTS, MARKS, Drawn, Picture, draw
from operations.judge import Judge
from operations.models import Minute
from operations.pages import as_json, charts_part
from operations.past import ACTIONS, MinuteFigures, Past, PastReader, Row
from operations.terminal import rendered
from operations.tests.well import postgres, snapshot
from outbox import conf
from outbox.handlers.pause import pause_handler
from outbox.models import OperatorAction, OutboxEvent
from outbox.process.heartbeat import Heartbeat

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def routes(transactional_db: None, topics: None) -> None:
    call_command("sync_routes", verbosity=0, stdout=StringIO())


def rows() -> list[Row]:
    return list(PastReader().read().rows)


@pytest.mark.usefixtures("routes")
def test_a_minute_is_kept_once_with_what_the_charts_need() -> None:
    place(at=NOW, lines=[("p1", 1, "1")])
    create_posts([new_post("ada", "hello")])
    pause_handler("record_sales", reason="a try", by="ada")
    begun = datetime.now(UTC)
    assert minute.note_minute()
    again = minute.note_minute()
    kept = rows()
    assert len(kept) == 1 + again  # a minute may have ended in between
    assert not again or kept[1].at - kept[0].at == timedelta(minutes=1)
    assert begun.replace(second=0, microsecond=0) <= kept[0].at <= datetime.now(UTC)
    figures = kept[0].figures
    for chart in CHARTS:
        if chart.name == "relayed":
            continue  # where a relay has run
        assert any(charts._is_of(name, chart) for name in figures.series), chart.name
    assert figures.series["pipeline/outbox#waits"] == OutboxEvent.objects.count() > 1
    assert "handlers: record_sales/HandlerPaused" in figures.alarms
    assert PastReader().read().migrations
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",), "the worker's other tasks have bounds of their own"


@pytest.mark.usefixtures("routes")
def test_how_long_it_has_been_so_is_taken_over_from_the_row_before() -> None:
    """Whichever process writes the next one."""
    held = {"handlers: record_sales/HandlerPaused": 1_750.0}
    before = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
    past.write(before, MinuteFigures(alarms=held))
    pause_handler("record_sales", reason="a try", by="ada")
    assert minute.note_minute()
    figures = rows()[-1].figures
    assert figures.alarms["handlers: record_sales/HandlerPaused"] >= 1_750.0 + 60
    warning = "HandlerPaused (handlers: record_sales)"
    assert warning in figures.on
    assert warning not in figures.red
    assert ("warning", f"alarm {warning}") in [
        (mark.kind, mark.words) for mark in draw(PastReader().read(), "hour").marks
    ]


@pytest.mark.usefixtures("routes")
def test_what_is_older_than_the_longest_chart_goes() -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for hours in (24, 24.9, 25.1, 48):
        past.write(now - timedelta(hours=hours), MinuteFigures())
    assert minute.note_minute()
    assert Minute.objects.count() == 3


@pytest.mark.django_db
def test_two_writers_keep_one_row() -> None:
    assert past.write(NOW, MinuteFigures(series={"a": 1}))
    assert not past.write(NOW, MinuteFigures(series={"a": 2}))


# -- charts ---------------------------------------------------------------------------------


def minutes(*values: Sequence[tuple[str, float]] | None, **more: object) -> list[Row]:
    """A row a minute up to NOW; None: there is none."""
    first = NOW - timedelta(minutes=len(values) - 1)
    return [
        Row(first + timedelta(minutes=number), MinuteFigures(series=dict(each), **more))  # type: ignore[arg-type]
        for number, each in enumerate(values)
        if each is not None
    ]


def drawn(name: str, rows: Sequence[Row], span: str = "hour") -> Drawn:
    [found] = [
        each
        for _, group in draw(Past(rows=rows), span).groups
        for each in group
        if each.chart.name == name
    ]
    return found


def table(name: str, rows: Sequence[Row]) -> list[str]:
    """The values of a chart of one line, oldest first."""
    return [values[0] for _, values in reversed(drawn(name, rows).rows)]


ORDERS = "business/sales#done"


def test_a_counter_is_shown_by_what_it_rises() -> None:
    cells = table("orders", minutes([(ORDERS, 100)], [(ORDERS, 130)], [(ORDERS, 130)]))
    assert cells[-3:] == ["?", "30", "0"]


def test_a_counter_that_begins_anew_counts_from_nothing() -> None:
    cells = table("orders", minutes([(ORDERS, 100)], [(ORDERS, 7)], [(ORDERS, 9)]))
    assert cells[-3:] == ["?", "7", "2"]


def test_a_gap_is_a_gap_and_what_came_in_it_is_shared_out() -> None:
    made = minutes([(ORDERS, 100)], [(ORDERS, 110)], None, None, [(ORDERS, 140)])
    assert table("orders", made)[-5:] == ["?", "10", "?", "?", "10"]
    assert len(drawn("orders", made).lines[0].paths) == 2


def test_what_waits_is_shown_as_it_was() -> None:
    waits = "pipeline/outbox#waits"
    made = minutes(*([(waits, value)] for value in (0, 5000, 20)))
    chart = drawn("pending", made)
    assert [values[0] for _, values in chart.rows][:3] == ["20", "5,000", "0"]
    assert chart.top == "5,000"
    assert "20 now, 5,000 at most" in chart.label


def test_channels_are_summed_and_handlers_are_not() -> None:
    sums = [("notifications/sms#done", 10.0), ("notifications/push#done", 5.0)]
    more = [("notifications/sms#done", 12.0), ("notifications/push#done", 9.0)]
    assert table("delivered", minutes(sums, more))[-1] == "6"
    lags = [("handlers/a#oldest", 90.0), ("handlers/b#oldest", 1.0)]
    lines = drawn("lag", minutes(lags)).lines
    assert [(line.name, line.last) for line in lines] == [("a", "90 s"), ("b", "1.0 s")]


def test_all_charts_have_one_axis() -> None:
    """A day has ten minutes a point: of a figure the highest."""
    waits = "pipeline/outbox#waits"
    made = minutes(*([(waits, 700 if number == 1000 else 0)] for number in range(1440)))
    chart = drawn("pending", made, "day")
    assert chart.points == len(chart.rows) == 144
    assert [values[0] for _, values in chart.rows].count("700") == 1
    picture = draw(Past(rows=made), "day")
    assert picture.ticks == ["12:00", "18:00", "00:00", "06:00", "12:00"]
    assert draw(Past(rows=made), "hour").ticks == ["11:00", "11:15", "11:30", "11:45", "12:00"]


def test_nothing_known_is_said() -> None:
    assert not draw(Past(), "hour").known


def marks(picture: Picture) -> Iterator[tuple[str, str, float]]:
    for mark in picture.marks:
        yield mark.kind, mark.words, mark.at


def test_deploys_alarms_actions_and_migrations_are_marked_where_they_were() -> None:
    quiet = {"releases": ("1",)}
    red = "HandlerLag (handlers: record_sales)"
    paused = "HandlerPaused (handlers: other)"
    made = [
        Row(NOW - timedelta(minutes=minute), MinuteFigures(**figures))
        for minute, figures in (
            (40, quiet),
            (30, {"releases": ("1", "2")}),
            (20, {"releases": ("2",), "red": (red,)}),  # as releases wrote it that kept no warnings
            (15, {"releases": ("2",), "on": (red, paused), "red": (red,)}),
            (9, {"releases": ("2", "2, build sha-2"), "on": (paused,)}),
            (3, {"releases": ("2, build sha-2",), "on": (paused, red), "red": (red,)}),
            (0, {"releases": ("2, build sha-2",)}),
        )
    ]
    action = OperatorAction(
        at=NOW - timedelta(minutes=45), by="ada", what="pause", subject="handler x", why="a look"
    )
    old = OperatorAction(at=NOW - timedelta(hours=3), by="ada", what="pause", subject="handler x")
    moved = (NOW - timedelta(minutes=6), "outbox 0009_operator_actions")
    picture = draw(Past(rows=made, actions=[old, action], migrations=[moved]), "hour")
    assert list(marks(picture)) == [
        ("action", "pause of handler x by ada: a look", 25.0),
        ("deploy", "release 2 runs", 50.0),
        ("alarm", f"alarm {red}", 66.67),
        ("warning", f"alarm {paused}", 75.0),
        ("deploy", "release 2, build sha-2 runs", 85.0),
        ("migration", "migration outbox 0009_operator_actions", 90.0),
        ("alarm", f"alarm {red}", 95.0),
    ]
    assert [mark.number for mark in picture.marks] == [1, 2, 3, 4, 5, 6, 7]
    assert picture.left_out == ""


def test_migrations_of_a_new_database_are_one_mark() -> None:
    begin = NOW - timedelta(minutes=9)
    moved = [(begin + timedelta(seconds=number), f"orders 000{number}_x") for number in range(3)]
    picture = draw(Past(rows=[Row(NOW, MinuteFigures())], migrations=moved), "hour")
    assert [(kind, words) for kind, words, _ in marks(picture)] == [
        ("migration", "3 migrations, the last orders 0002_x")
    ]


@pytest.mark.parametrize(
    ("actions", "said"),
    [(MARKS, ""), (MARKS + 3, "and 3 earlier"), (ACTIONS, "and at least 160 earlier")],
)
def test_marks_that_are_left_out_are_counted(actions: int, said: str) -> None:
    """Of the actions of a day only the newest are read."""
    acted = [
        OperatorAction(
            number,
            NOW - timedelta(minutes=actions - number),
            "ada",
            "pause",
            "x",
            "",
            1,
            1,
            0,
            NOW,
            "",
        )
        for number in range(actions)
    ]
    past = Past(rows=minutes([("pipeline/outbox#waits", 1)]), actions=acted)
    picture = draw(past, "day")
    assert (picture.left_out, len(picture.marks)) == (said, MARKS)
    shown = snapshot(Judge(()), from_postgres=postgres(past=past))
    page, terminal = charts_part(shown, "day"), rendered(shown, colour=False, span="day")
    assert (f"The newest {MARKS}, {said}." in page) == bool(said)
    assert (said in page, said in terminal) == (True, True)
    assert as_json(shown, span="day", letters=True)["past"]["earlierMarks"] == actions - MARKS


@pytest.mark.usefixtures("routes")
def test_an_ordinary_deploy_leaves_a_mark(settings: Any) -> None:
    """The release stays, the image is another."""
    forget_heartbeats()

    def heartbeat(build: str) -> Heartbeat:
        settings.OUTBOX_BUILD = build
        made = Heartbeat("web")
        made.beat()
        return made

    first = heartbeat("sha-1")
    assert minute.note_minute()
    [row] = rows()
    earlier = row.at - timedelta(minutes=1)
    Minute.objects.update(at=earlier)
    second = heartbeat("sha-2")
    assert minute.note_minute()
    builds = {f"{conf.release()}, build sha-1", f"{conf.release()}, build sha-2"}
    assert builds <= set(rows()[-1].figures.releases)
    deploys = {
        mark.words for mark in draw(PastReader().read(), "hour").marks if mark.kind == "deploy"
    }
    assert f"release {conf.release()}, build sha-2 runs" in deploys
    assert f"release {conf.release()}, build sha-1 runs" not in deploys, "it ran before"
    first.end()
    second.end()
