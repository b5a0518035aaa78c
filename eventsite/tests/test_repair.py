"""Repair against real logs: what it brings back in order, and what it leaves alone."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from devtools.probe import queries as probe_queries
from devtools.probe.events import PROBE_TOPIC
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.pipeline import (
    PROBE_HANDLER,
    apply_probe_log,
    cut_log,
    drain_all,
    make_anew,
)
from eventsite.tests.probe_log import (
    ROUTE,
    found,
    logs,
    lose_receipts,
    partition_of,
    plan_of,
    publish,
    redrive_all,
)
from outbox.audit import compare
from outbox.audit.compare import MissingReason
from outbox.audit.repair import repair
from outbox.audit.replay import ReplayRefused
from outbox.models import BridgePosition, DeadLetter, OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")


class TestRepair:
    def test_brings_back_the_tail_of_each_key_in_order(self) -> None:
        publish("a", "b", times=4)
        apply_probe_log()
        lose_receipts(3, 4)
        assert found() == [MissingReason.PASSED] * 4
        done = repair(ROUTE, logs())
        assert (done.handed_over, done.out_of_order) == (4, 0)
        assert set(found()) == {MissingReason.PARKED}
        redrive_all()
        verdict = probe_queries.verdict()
        assert (verdict.drawn, verdict.applied, verdict.ok) == (8, 8, True)
        assert found() == []
        assert not BridgePosition.objects.filter(letters_open=True).exists()

    @needs_apache_kafka
    def test_keeps_later_events_of_its_keys_behind_it(self) -> None:
        publish("a", times=3)
        apply_probe_log()
        lose_receipts(3)
        repair(ROUTE, logs())
        publish("a", times=2)
        apply_probe_log()
        redrive_all()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (5, True)

    def test_leaves_alone_what_successors_have_overtaken(self) -> None:
        publish("a", "b", times=3)
        apply_probe_log()
        lose_receipts(2)
        done = repair(ROUTE, logs())
        assert (done.handed_over, done.out_of_order) == (0, 2)
        assert (found(), DeadLetter.objects.count()) == ([MissingReason.PASSED] * 2, 0)
        done = repair(ROUTE, logs(), out_of_order=True)
        assert (done.handed_over, done.out_of_order) == (2, 0)
        redrive_all()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.lost, verdict.violations) == (6, 0, 4)

    def test_twice_hands_over_once(self) -> None:
        publish("a")
        apply_probe_log()
        lose_receipts(1)
        assert [repair(ROUTE, logs()).handed_over for _ in range(2)] == [1, 0]
        redrive_all()
        assert probe_queries.verdict().applied == 1

    def test_of_poison_ends_as_a_dead_letter(self) -> None:
        publish("a")
        apply_probe_log()
        lose_receipts(1)
        repair(ROUTE, logs())

        def fails(_: object) -> None:
            raise ValueError("poison")

        redrive_all(fails)
        [letter] = DeadLetter.objects.all()
        assert (letter.attempts, letter.error) == (1, "ValueError: poison")

    @needs_apache_kafka
    def test_moves_a_position_behind_what_the_log_has_lost(self) -> None:
        publish("a", "b", "c", times=3)
        cut_log(PROBE_TOPIC.name)
        assert set(found()) == {MissingReason.GONE}
        publish("a")
        done = repair(ROUTE, logs())
        assert done.handed_over == 9
        assert done.positions_moved == len(
            {partition_of("a"), partition_of("b"), partition_of("c")}
        )
        apply_probe_log()
        redrive_all()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (10, True)

    def test_by_the_command(self) -> None:
        publish("a")
        apply_probe_log()
        lose_receipts(1)
        errors = StringIO()
        call_command("audit", "--repair", stdout=StringIO(), stderr=errors)
        assert "append_probe_entries: 1 events handed to the redrive" in errors.getvalue()
        redrive_all()
        out = StringIO()
        call_command("audit", stdout=out)
        assert out.getvalue() == "No committed event is missing.\n"


class TestATopicMadeAnew:
    """While a drain goes on: what it sends reaches the new log before anybody adopts that."""

    @pytest.fixture(autouse=True)
    def adopted(self, pipeline: None) -> None:
        publish("a", "b", times=2)  # lost with the log
        make_anew(PROBE_TOPIC.name)
        publish("a", "b", "c")
        call_command("sync_routes", "--recreated", stdout=StringIO())

    def test_keeps_the_order_of_its_keys(self) -> None:
        drain_all()
        apply_probe_log()
        assert found() == []
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.violations, verdict.ok) == (7, 0, True)

    def test_cannot_be_replayed_as_if_it_were_whole(self) -> None:
        with pytest.raises(ReplayRefused, match="recreated since the handler began"):
            plan_of(PROBE_HANDLER)
        assert plan_of(PROBE_HANDLER, since="earliest").messages == 3


class TestALogThatLostItsEnd:
    """As after the loss of a broker's data: the same topic, but it ends before its positions."""

    @pytest.fixture(autouse=True)
    def no_margin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "CLOCK_SECONDS", 0.0)

    def lose_all(self) -> None:
        make_anew(PROBE_TOPIC.name)
        BridgePosition.objects.filter(topic=PROBE_TOPIC.name).update(
            topic_id=logs()[PROBE_TOPIC.name].topic_id, start_offset=0
        )

    def test_is_found_and_repaired_in_order(self) -> None:
        publish("a", times=3)
        apply_probe_log()
        publish("a", times=2)
        self.lose_all()
        assert found() == [MissingReason.GONE] * 2
        publish("a")
        assert found() == [MissingReason.GONE] * 2 + [MissingReason.PASSED]
        done = repair(ROUTE, logs())
        assert (done.handed_over, done.out_of_order) == (3, 0)
        position = BridgePosition.objects.get(handler=PROBE_HANDLER, partition=partition_of("a"))
        assert position.next_offset == 1
        assert repair(ROUTE, logs()).positions_moved == 0
        publish("a")
        OutboxEvent.objects.filter(offset__gt=1).update(offset=0)  # for the reader of the log
        apply_probe_log()
        redrive_all()
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (7, True)

    def test_is_not_seen_in_what_a_drain_has_just_sent(self) -> None:
        before = logs()
        publish("a", times=2)
        states = {each.reason for page in compare.pages(ROUTE, before) for each in page}
        assert states == {MissingReason.UNDER_WAY}

    @needs_apache_kafka
    def test_moves_no_position_that_is_only_newer_than_what_was_read(self) -> None:
        before = logs()
        publish("a", times=2)
        apply_probe_log()
        assert repair(ROUTE, before).positions_moved == 0
