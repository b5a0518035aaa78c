"""A replay gives the same figures as the first pass, and is refused where it cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from analytics import services as analytics
from analytics.models import SalesMetric
from devtools.probe import queries as probe_queries
from devtools.probe.events import PROBE_TOPIC
from devtools.testing import histories
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.pipeline import (
    PROBE_HANDLER,
    apply_probe_log,
    chunks_since,
    cut_log,
    drain_all,
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
from outbox.audit.repair import repair
from outbox.audit.replay import ReplayRefused, plan, replay
from outbox.database.ask import changed_by
from outbox.dead_letters import letters as letter_rows
from outbox.handlers import pause, task
from outbox.models import BridgePosition, DeadLetter, InboxReceipt

pytestmark = pytest.mark.usefixtures("pipeline")

MOST_PARAMETERS = 65_535  # of a statement; the protocol counts them in 16 bits


def apply_sales() -> None:
    for chunk in list(chunks_since("record_sales")):
        task.apply_chunks(handler="record_sales", chunks=[chunk], effect=analytics.record_sales)


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

    def test_closes_more_of_them_than_a_statement_has_parameters(self) -> None:
        changed_by(
            "INSERT INTO dead_letter (handler, event_id, topic, partition, key, type, source, event_time, payload,"
            " traceparent, correlation_id, state, error)"
            " SELECT %s, gen_random_uuid(), %s, 0, 'hot', '', '', '', '', '', '', %s, ''"
            " FROM generate_series(1, %s)",
            (PROBE_HANDLER, PROBE_TOPIC.name, DeadLetter.State.PARKED, MOST_PARAMETERS + 1),
        )
        replay(plan_of(PROBE_HANDLER), by="test")
        assert not DeadLetter.objects.exclude(state=DeadLetter.State.DISCARDED).exists()

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
