"""Who did what: written by whatever acts, in its transaction, once for each form."""

from __future__ import annotations

import getpass
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import transaction
from django.db.models import F

from outbox import operator_log
from outbox.handlers import pause
from outbox.lanes.pause import pause_lanes
from outbox.models import BridgePosition, DeadLetter, HandlerControl, OperatorAction
from outbox.operator_log import DoneAlready
from outbox.tests.admin_pages import assert_every_page_is_bounded, fill, log_in
from outbox.tests.letters import HANDLER, Applied, chunk, create_positions, event, run

pytestmark = pytest.mark.django_db


def kept() -> list[tuple[str, str, str, str, int]]:
    rows = OperatorAction.objects.order_by("id")
    return [(row.by, row.what, row.subject, row.why, row.done) for row in rows]


@pytest.fixture
def letters() -> list[int]:
    """Two dead heads."""
    create_positions()
    run(Applied("a", "b"), chunk([event("a", key="a"), event("b", key="b")]))
    DeadLetter.objects.update(state=DeadLetter.State.DEAD)
    return list(DeadLetter.objects.order_by("id").values_list("id", flat=True))


def command(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_it_is_there_if_and_only_if_the_thing_was_done() -> None:
    with transaction.atomic():
        pause.pause_handler(HANDLER, reason="x", by="me")
        transaction.set_rollback(True)
    assert kept() == []
    once = uuid4()
    pause.pause_handler(HANDLER, reason="x", by="me", once=once)
    pause.resume_handler(HANDLER, by="you", reason="y")
    with pytest.raises(DoneAlready), transaction.atomic():
        pause.pause_handler(HANDLER, reason="x", by="me", once=once)
    assert not HandlerControl.objects.get(handler=HANDLER).paused
    assert kept() == [
        ("me", "pause", f"handler {HANDLER}", "x", 1),
        ("you", "resume", f"handler {HANDLER}", "y", 1),
    ]
    assert operator_log.under(once) == OperatorAction.objects.earliest("id").id


def test_lanes_that_were_paused_before_are_not_counted() -> None:
    pause_lanes([3], reason="first", by="me")
    pause_lanes([3, 5], reason="second", by="me", once=(once := uuid4()))
    with pytest.raises(DoneAlready), transaction.atomic():
        pause_lanes([9], reason="third", by="me", once=once)
    assert [(subject, done) for _, _, subject, _, done in kept()] == [
        ("lane 3", 1),
        ("lanes 3, 5", 1),
    ]


def test_commands_write_there_too(letters: list[int]) -> None:
    me = getpass.getuser()
    command("handlers", "pause", HANDLER, "--reason", "a look", "--by", "ann")
    command("handlers", "resume", HANDLER, "--reason", "mended")
    command("lanes", "pause", "3", "--reason", "r", "--by", "bob")
    command("lanes", "resume", "all", "--by", "bob")
    command("handlers", "take", HANDLER, "--type", "ORDER_CREATED")
    command("dead_letters", "replay", "--dry-run")
    command("dead_letters", "replay", str(letters[0]), "--note", "mended")
    command("dead_letters", "discard", "--by", "eve")
    assert kept() == [
        ("ann", "pause", f"handler {HANDLER}", "a look", 1),
        (me, "resume", f"handler {HANDLER}", "mended", 1),
        ("bob", "pause", "lane 3", "r", 1),
        ("bob", "resume", "lanes 0 to 63", "", 1),
        (me, "take", f"events of type ORDER_CREATED of {HANDLER}", "", 0),
        (me, "replay", f"dead letter {letters[0]} of {HANDLER}", "mended", 1),
        ("eve", "discard", f"dead letters of {HANDLER}", "", 2),
    ]
    assert all(row.ended_at for row in OperatorAction.objects.all())


def test_the_admin_writes_there_too(letters: list[int]) -> None:
    client = log_in()
    data = {"action": "discard", "_selected_action": [str(each) for each in letters]}
    page = "/admin/outbox/deadletter/"
    client.post(page, data)
    assert kept() == []
    client.post(page, {**data, "confirmed": "yes", "note": "garbage"})
    assert kept() == [("operator", "discard", f"dead letters of {HANDLER}", "garbage", 2)]
    listed = client.get("/admin/outbox/operatoraction/").content.decode()
    assert "garbage" in listed
    row = OperatorAction.objects.get()
    assert client.get(f"/admin/outbox/operatoraction/{row.id}/change/").status_code == 200
    assert client.post(f"/admin/outbox/operatoraction/{row.id}/delete/").status_code == 403


def test_the_admin_s_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(
        monkeypatch,
        "operator_action",
        "INSERT INTO operator_action (by, what, subject) SELECT 'a', 'pause', 'x'"
        " FROM generate_series(1, 20000)",
    )
    assert_every_page_is_bounded(log_in(), ["/admin/outbox/operatoraction/"])


def test_a_circuit_that_trips_is_written_down() -> None:
    create_positions()
    BridgePosition.objects.filter(partition=0).update(failure_run=1_000)
    assert pause.trip_if_broken(HANDLER, ("order-events", 0))
    [(by, what, subject, why, _)] = kept()
    assert (by, what, subject) == ("circuit", "pause", f"handler {HANDLER}")
    assert why.startswith("1000 failures in a row")


def test_the_newest_come_first_and_what_is_under_way_is_never_left_out() -> None:
    runs = [operator_log.begin("replay", f"run {n}", by="me", run={"n": n}) for n in range(2)]
    for number in range(5):
        operator_log.note("pause", f"handler {number}", by="me")
    assert operator_log.end(runs[0], "over")
    assert not operator_log.end(runs[0], "again")
    found = [entry.subject for entry in operator_log.newest(3)]
    assert found == ["handler 4", "handler 3", "handler 2", "run 1"]
    ended = operator_log.entry(runs[0])
    assert ended is not None
    assert ended.outcome == "over"


def test_it_is_kept_for_a_year() -> None:
    for number in range(3):
        operator_log.note("pause", f"handler {number}", by="me")
    year = timedelta(days=operator_log.KEPT_DAYS)
    rows = OperatorAction.objects.order_by("id")
    rows.filter(id__lte=rows[1].id).update(at=F("at") - year)
    assert operator_log.purge() == 2
    assert [row[2] for row in kept()] == ["handler 2"]


def test_what_no_column_holds_is_left_out() -> None:
    operator_log.note("pause", "handler\x00 x", by="m\x00e", why="\x00" + "y" * 5_000)
    [(by, _, subject, why, _)] = kept()
    assert (by, subject, why) == ("me", "handler x", "y" * operator_log.TEXT_LENGTH)
