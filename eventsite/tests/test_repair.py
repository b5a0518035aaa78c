"""Repair, replay and new handlers against real logs: what they bring back, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from io import StringIO
from urllib.request import urlopen
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.utils import timezone

from analytics import services as analytics
from analytics.models import SalesMetric
from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC
from devtools.testing import histories
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.pipeline import (
    PROBE_HANDLER,
    apply_probe_log,
    chunks_since,
    cut_log,
    drain_all,
    make_anew,
    settles,
)
from devtools.testing.processes import child_environment, command_of, free_port, running
from outbox import conf
from outbox.audit import compare
from outbox.audit.compare import MissingReason
from outbox.audit.repair import repair
from outbox.audit.replay import ReplayPlan, ReplayRefused, plan, replay
from outbox.dead_letters import due, redrive
from outbox.dead_letters import letters as letter_rows
from outbox.handlers import pause, task
from outbox.handlers.task import Effect
from outbox.inbox import positions
from outbox.kafka import admin
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")

ROUTE = conf.route_named(PROBE_HANDLER)


def publish(*keys: str, times: int = 1) -> None:
    for _ in range(times):
        probe_services.draw(keys)
    drain_all()


def logs() -> dict[str, admin.TopicState]:
    return admin.topic_states([PROBE_TOPIC.name])


def found() -> list[MissingReason]:
    return [each.reason for page in compare.pages(ROUTE, logs()) for each in page]


def lose_receipts(*numbers: int) -> None:
    """As if the effects of these numbers of each key had never been."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH lost AS (DELETE FROM probe_log WHERE seq = ANY(%s) RETURNING event_id)"
            " DELETE FROM inbox_receipt WHERE event_id IN (SELECT event_id FROM lost)",
            (list(numbers),),
        )


def redrive_all(effect: Effect = probe_services.append_entries) -> None:
    """What beat and the handler's task do with letters that are due."""
    while ids := due.claim_due(ROUTE):
        redrive.run_letters(handler=PROBE_HANDLER, letters=ids, effect=effect)


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
        assert out.getvalue() == "Every committed event has arrived everywhere.\n"


def partition_of(key: str) -> int:
    number = OutboxEvent.objects.filter(key=key).values_list("partition", flat=True).first()
    assert number is not None
    return number


def apply_sales() -> None:
    for chunk in list(chunks_since("record_sales")):
        task.apply_chunks(handler="record_sales", chunks=[chunk], effect=analytics.record_sales)


def plan_of(handler: str, since: str = "start") -> ReplayPlan:
    route = conf.route_named(handler)
    return plan(route, admin.topic_states([route.topic.name])[route.topic.name], since=since)


@needs_apache_kafka
class TestReplay:
    def some_sales(self) -> dict[tuple[str, str], Decimal]:
        for number in range(12):
            order = histories.place(at=timezone.now(), lines=[(f"p{number % 3}", 2, "10.01")])
            if number % 2:
                histories.pay(order)
            if number % 3 == 0:
                histories.cancel(order)
        drain_all()
        apply_sales()
        return histories.figures()

    def test_gives_equal_figures(self) -> None:
        before = self.some_sales()
        analytics.fold_additions()
        SalesMetric.objects.filter(metric_name="revenue_total").update(value=1)
        events = InboxReceipt.objects.count()
        assert replay(plan_of("record_sales"), by="test") == events == 22
        assert (histories.figures(), InboxReceipt.objects.count()) == ({}, 0)
        apply_sales()
        assert histories.figures() == before
        call_command("check_sales_metrics", stdout=StringIO())

    def test_touches_no_other_handler(self) -> None:
        publish("a", times=3)
        apply_probe_log()
        other = list(BridgePosition.objects.filter(handler=PROBE_HANDLER).order_by("id").values())
        self.some_sales()
        replay(plan_of("record_sales"), by="test")
        assert (
            list(BridgePosition.objects.filter(handler=PROBE_HANDLER).order_by("id").values())
            == other
        )
        assert InboxReceipt.objects.filter(handler=PROBE_HANDLER).count() == 3
        assert probe_queries.verdict().ok

    def replayed_with_open_letters(self) -> None:
        """The redrive comes before the bridge has read the log again."""
        publish("a", times=3)
        apply_probe_log()
        lose_receipts(2, 3)
        repair(ROUTE, logs())
        replay(plan_of(PROBE_HANDLER), by="test")
        redrive_all()
        apply_probe_log()

    def test_closes_the_dead_letters_of_the_handler(self) -> None:
        self.replayed_with_open_letters()
        letters = set(DeadLetter.objects.values_list("state", flat=True))
        assert letters == {DeadLetter.State.DISCARDED}
        verdict = probe_queries.verdict()
        assert (verdict.applied, verdict.ok) == (3, True)

    def test_that_left_them_open_would_break_the_order(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = letter_rows.resolve

        def only_applied(ids: Iterable[int], state: int, *, by: str, note: str = "") -> None:
            if state == DeadLetter.State.APPLIED:
                real(ids, state, by=by, note=note)

        monkeypatch.setattr(letter_rows, "resolve", only_applied)
        self.replayed_with_open_letters()
        assert probe_queries.verdict().violations > 0

    def test_that_is_killed_leaves_the_handler_paused_and_is_run_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish("a", times=3)
        apply_probe_log()
        with monkeypatch.context() as killed:
            killed.setattr(letter_rows, "resolve", _killed)
            with pytest.raises(InterruptedError):
                replay(plan_of(PROBE_HANDLER), by="test")
        [status] = pause.handler_statuses([PROBE_HANDLER])
        assert (status.paused, status.reason) == (True, "replay")
        assert probe_queries.verdict().applied == 3
        replay(plan_of(PROBE_HANDLER), by="test")
        assert pause.handler_statuses([PROBE_HANDLER])[0].paused is False
        apply_probe_log()
        assert probe_queries.verdict().ok

    def test_leaves_a_handler_paused_that_somebody_has_paused(self) -> None:
        pause.pause_handler(PROBE_HANDLER, reason="for the night", by="ops")
        replay(plan_of(PROBE_HANDLER), by="test")
        [status] = pause.handler_statuses([PROBE_HANDLER])
        assert (status.paused, status.reason, status.changed_by) == (
            True,
            "for the night",
            "ops",
        )

    def test_is_refused_once_the_log_has_lost_its_beginning(self) -> None:
        publish("a", times=2)
        apply_probe_log()
        cut_log(PROBE_TOPIC.name)
        with pytest.raises(ReplayRefused, match="cannot be rebuilt completely"):
            plan_of(PROBE_HANDLER)
        publish("a")
        apply_probe_log()
        left = plan_of(PROBE_HANDLER, since="earliest")
        assert left.messages == 1
        replay(left, by="test")
        apply_probe_log()
        assert probe_queries.verdict().applied == 1
        assert found() == []  # what lies before its new start is not its business any more

    def test_from_offsets_reads_these_partitions_from_there(self) -> None:
        publish("a", times=3)
        apply_probe_log()
        number = partition_of("a")
        start = BridgePosition.objects.get(handler=PROBE_HANDLER, partition=number).start_offset
        with pytest.raises(CommandError, match="add --yes"):
            call_command("replay", handler=PROBE_HANDLER, stdout=StringIO())
        call_command(
            "replay",
            handler=PROBE_HANDLER,
            since=f"{number}={start + 2}",
            yes=True,
            stdout=StringIO(),
        )
        apply_probe_log()
        assert (probe_queries.verdict().applied, found()) == (1, [])

    @pytest.mark.parametrize(
        ("since", "words"),
        [
            ("yesterday", "give start"),
            ("12=0", "has the partitions"),
            ("0=999999999", "holds offsets"),
        ],
    )
    def test_refuses_a_start_that_is_none(self, since: str, words: str) -> None:
        with pytest.raises(CommandError, match=words):
            call_command("replay", handler=PROBE_HANDLER, since=since, yes=True, stdout=StringIO())

    def test_refuses_a_handler_that_cannot_be_emptied(self) -> None:
        with pytest.raises(ReplayRefused, match="names no reset="):
            plan(replace(ROUTE, reset=""), logs()[PROBE_TOPIC.name])


def _killed(*_: object, **__: object) -> None:
    raise InterruptedError


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


@needs_apache_kafka
class TestAHandlerAddedUnderLoad:
    """Another reader of the probe's topic, with events before, meanwhile and after."""

    @pytest.mark.parametrize(("since", "expected"), [("now", 4), ("earliest", 6)])
    def test_starts_where_it_says(self, since: str, expected: int) -> None:
        cut_log(PROBE_TOPIC.name)
        publish("a", times=2)
        probe_services.draw(["a"])  # committed before, in Kafka after
        positions.create_positions("newcomer", logs()[PROBE_TOPIC.name], since=since)
        publish("a", times=3)
        newcomer = replace(ROUTE, handler="newcomer", since=since)
        applied: list[UUID] = []

        def remember(events: object) -> None:
            applied.extend(event.event_id for event in events)  # type: ignore[attr-defined]

        conf_routes = conf.routes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conf, "routes", lambda: (*conf_routes, newcomer))
            waiting = [each for page in compare.pages(newcomer, logs()) for each in page]
            assert len(waiting) == expected
            for chunk in list(chunks_since("newcomer")):
                task.apply_chunks(handler="newcomer", chunks=[chunk], effect=remember)
            assert [each for page in compare.pages(newcomer, logs()) for each in page] == []
        assert len(applied) == len(set(applied)) == expected
        ids = OutboxEvent.objects.order_by("id").values_list("event_id", flat=True)
        assert applied == list(ids)[-expected:]


@needs_apache_kafka
class TestARunningBridge:
    """Follows positions that were moved under its hands, without a restart."""

    @pytest.fixture
    def processes(self) -> Iterator[None]:
        with ExitStack() as started:
            for name in ("worker-effects", "bridge"):
                port = free_port()
                environment = child_environment(METRICS_PORT=str(port))
                url = f"http://127.0.0.1:{port}/health"
                started.enter_context(running(command_of(name), environment, url))
            yield

    def test_reads_the_log_again_after_a_replay(self, processes: None) -> None:
        publish("a", "b", times=20)
        assert settles(lambda: probe_queries.verdict().applied == 40)
        replay(plan_of(PROBE_HANDLER), by="test")
        publish("a", "b", times=5)
        assert settles(lambda: probe_queries.verdict().applied == 50)
        assert probe_queries.verdict().ok

    def test_goes_on_once_a_log_has_grown_past_a_position_beyond_its_end(self) -> None:
        port = free_port()

        def standing() -> float:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                lines = answer.read().decode().splitlines()
            name = f'bridge_positions_out_of_range{{handler="{PROBE_HANDLER}"'
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        with ExitStack() as started:
            for name in ("worker-effects", "bridge"):
                port = free_port()
                environment = child_environment(METRICS_PORT=str(port))
                url = f"http://127.0.0.1:{port}/health"
                started.enter_context(running(command_of(name), environment, url))
            publish("a")
            assert settles(lambda: probe_queries.verdict().applied == 1)
            BridgePosition.objects.filter(
                handler=PROBE_HANDLER, partition=partition_of("a")
            ).update(next_offset=F("next_offset") + 3)
            assert settles(lambda: standing() == 1)
            publish("a", times=5)
            assert settles(lambda: InboxReceipt.objects.count() == 3)
            assert settles(lambda: standing() == 0)

    def test_goes_on_behind_what_the_log_has_lost(self, processes: None) -> None:
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 1)
        pause.pause_handler(PROBE_HANDLER, reason="", by="test")
        publish("a", times=5)
        cut_log(PROBE_TOPIC.name)
        pause.resume_handler(PROBE_HANDLER, by="test")
        publish("a", times=2)
        repair(ROUTE, logs())

        def caught_up() -> bool:
            redrive_all()
            return probe_queries.verdict().lost == 0

        assert settles(caught_up)
        assert probe_queries.verdict().ok
