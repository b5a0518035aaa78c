"""The audit distinguishes what is missing from what is under way; its command names what is missing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from outbox.audit import compare
from outbox.audit.compare import MissingReason
from outbox.kafka import admin
from outbox.models import (
    DeadLetter,
    InboxReceipt,
)
from outbox.tests.audited import LOGS, ROUTE, reasons, watch
from outbox.tests.backbone_rows import (
    HANDLER,
    LOG,
    TOPIC,
    age,
    positions,
    published,
    receipt,
    refused,
)


@pytest.mark.django_db
class TestAnEvent:
    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            ({"offset": 9}, MissingReason.PASSED),
            ({"offset": 10}, MissingReason.UNDER_WAY),
            ({"offset": None, "partition": None, "status": 0}, MissingReason.UNSENT),
            ({"offset": None, "partition": None, "status": 2}, MissingReason.HELD),
            ({"offset": 12, "partition": 99}, MissingReason.NO_POSITION),
        ],
    )
    def test_without_a_receipt(self, event: dict[str, Any], reason: MissingReason) -> None:
        positions(10)
        published([0], **event)
        assert reasons() == [reason]

    @pytest.mark.parametrize(
        ("letter", "found"),
        [(DeadLetter.State.DEAD, [MissingReason.REFUSED]), (DeadLetter.State.DISCARDED, [])],
    )
    def test_that_kafka_has_refused(self, letter: int, found: list[MissingReason]) -> None:
        refused(letter)
        assert reasons() == found

    @pytest.mark.parametrize(
        ("offset", "reason"), [(4, MissingReason.GONE), (5, MissingReason.UNDER_WAY)]
    )
    def test_that_the_log_no_longer_holds(self, offset: int, reason: MissingReason) -> None:
        positions(3)
        published([offset], partition=0)
        assert reasons() == [reason]

    def test_of_a_topic_recreated(self) -> None:
        positions(3, topic_id=uuid4())
        published([7])
        assert reasons() == [MissingReason.OTHER_LOG]

    @pytest.mark.parametrize(
        ("outcome", "found"),
        [
            (InboxReceipt.Outcome.APPLIED, []),
            (InboxReceipt.Outcome.DISCARDED, []),
            (InboxReceipt.Outcome.PARKED, [MissingReason.PARKED]),
        ],
    )
    def test_with_a_receipt(self, outcome: int, found: list[MissingReason]) -> None:
        positions(10)
        receipt(published([9])[0], outcome)
        assert reasons() == found

    def test_with_the_receipt_of_another_handler(self) -> None:
        positions(10)
        receipt(published([9])[0], handler="another")
        assert reasons() == [MissingReason.PASSED]

    @pytest.mark.parametrize("change", [{"type": "OTHER"}, {"topic": "other"}])
    def test_nobody_subscribes_to(self, change: dict[str, Any]) -> None:
        positions(10)
        published([9], **change)
        assert reasons() == []

    def test_from_before_the_handler_began(self) -> None:
        positions(10, start_offset=8)
        published([7, 8])
        assert reasons() == [MissingReason.PASSED]

    def test_is_judged_without_kafka_by_the_position_alone(self) -> None:
        positions(3)
        published([2], partition=0)
        published([4], partition=0)
        found = [each.reason for page in compare.pages(ROUTE, {}) for each in page]
        assert found == [MissingReason.PASSED, MissingReason.UNDER_WAY]


@pytest.mark.django_db
def test_pages_end_where_the_outbox_does() -> None:
    positions(10)
    events = published([1, 2, 3, 4, 5])
    receipt(events[1])
    found = [each.offset for page in compare.pages(ROUTE, LOGS, size=2) for each in page]
    assert found == [1, 3, 4, 5]


@pytest.mark.django_db
class TestADatabaseClockSetBack:
    """Rows seem to be written in times to come."""

    def test_hides_nothing_from_a_whole_audit(self) -> None:
        positions(10)
        published([7, 8, 9])
        age(-1)
        assert reasons(size=2) == [MissingReason.PASSED] * 3

    def test_forgets_no_open_row(self) -> None:
        positions(10)
        published([9])
        age(1)
        assert watch() == {MissingReason.PASSED: 1}
        age(-2)
        assert [watch(), watch()] == [{MissingReason.PASSED: 1}] * 2


@pytest.mark.django_db
class TestTheEndOfALog:
    @pytest.mark.parametrize(
        ("offset", "reason"), [(98, MissingReason.UNDER_WAY), (99, MissingReason.GONE)]
    )
    def test_before_which_a_row_was_published(self, offset: int, reason: MissingReason) -> None:
        positions(10)
        published([offset])
        age(1)
        assert reasons() == [reason]

    def test_says_nothing_of_rows_published_after_it_was_read(self) -> None:
        positions(10)
        published([99])
        age(0.5)
        earlier = replace(LOG, read_at=time.monotonic() - 3600)
        [page] = compare.pages(ROUTE, {TOPIC: earlier})
        assert [each.reason for each in page] == [MissingReason.UNDER_WAY]


def run_command(*arguments: str) -> str:
    out = StringIO()
    call_command("audit", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.django_db
class TestTheCommand:
    @pytest.fixture(autouse=True)
    def kafka(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admin, "topic_states", lambda _: LOGS)

    def test_says_when_all_is_well(self) -> None:
        assert run_command() == "No committed event is missing.\n"

    def test_names_what_is_missing_and_exits_1(self) -> None:
        positions(10)
        [event] = published([9])
        published([10])
        age(1)
        out = StringIO()
        with pytest.raises(CommandError, match=r"^1 events are missing\. Keep this report"):
            call_command("audit", "--handler", HANDLER, stdout=out)
        lines = out.getvalue().splitlines()
        assert lines[0].startswith(f"MISSING {HANDLER}: ORDER_CREATED {event.event_id} of {TOPIC}")
        assert lines[0].endswith("at 1 @ 9, 3600 s old: passed without a receipt")
        assert f"{HANDLER}: 1 waiting, the oldest 3600 s: not yet applied" in lines

    def test_waiting_is_no_fault(self) -> None:
        positions(10)
        published([10])
        [counted] = json.loads(run_command("--json"))["handlers"]
        assert (counted["state"], counted["missing"], counted["events"]) == ("under_way", False, 1)

    def test_knows_its_handlers(self) -> None:
        with pytest.raises(CommandError, match="No handler has the name 'nobody'"):
            run_command("--handler", "nobody")
