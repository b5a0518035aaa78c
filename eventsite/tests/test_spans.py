"""What the spans of drain, bridge, task and redrive say, above all when something fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app
from django.db import InterfaceError
from django.utils import timezone
from kombu.exceptions import OperationalError as RedisAway
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from devtools.testing.histories import place
from devtools.testing.receiver import spans_in_memory
from outbox import conf, tracing
from outbox.bridge.dispatch import Dispatch
from outbox.bridge.partition import Partitions
from outbox.dead_letters import due, redrive
from outbox.drain.batch import drain_batch
from outbox.drain.state import DrainState
from outbox.envelope import TRACEPARENT as TRACEPARENT_SHAPE
from outbox.envelope import EventEnvelope, TraceContext
from outbox.handlers.foreign import refuse_none
from outbox.handlers.task import Effect, effect_task, run_chunks
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery, OutgoingMessage
from outbox.lanes import claim
from outbox.models import BridgePosition, DeadLetter
from outbox.process import task_queue
from outbox.tests import letters

ROUTE = conf.route_named(letters.HANDLER)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

pytestmark = pytest.mark.django_db


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    return spans_in_memory(monkeypatch)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a task was last sent with; nothing reaches Celery."""
    options: dict[str, Any] = {}

    def send_task(name: str, **given: Any) -> None:
        options.update(given)

    def queue_length(queue: str) -> float:
        return 0

    monkeypatch.setattr(current_app, "send_task", send_task)
    monkeypatch.setattr(task_queue, "queue_length", queue_length)
    return options


def only(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The one span that there is; it can be sent."""
    [span] = spans.get_finished_spans()
    assert span.name == name
    assert encode_spans([span]).SerializeToString()
    return span


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def failure(span: ReadableSpan) -> str:
    assert not span.status.is_ok
    return span.status.description or ""


def recorded(span: ReadableSpan) -> list[str]:
    return [str((event.attributes or {})["exception.message"]) for event in span.events]


def event(payload: str, trace: str = TRACEPARENT) -> EventEnvelope:
    return EventEnvelope(
        event_id=uuid4(),
        type="ORDER_CREATED",
        topic=letters.TOPIC,
        key="k",
        source="/orders",
        time="2026-03-11T22:00:00.000Z",
        payload=payload,
        trace=TraceContext(trace, "c"),
    )


class TestADrain:
    def delivers(
        self, monkeypatch: pytest.MonkeyPatch, judge: Callable[[BatchDelivery], None]
    ) -> None:
        def send(messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
            delivery = BatchDelivery(size=len(messages))
            judge(delivery)
            return delivery

        monkeypatch.setattr(producer, "send", send)

    def test_with_nothing_to_do_is_not_told(self, spans: InMemorySpanExporter) -> None:
        assert drain_batch(DrainState()) is None
        assert spans.get_finished_spans() == ()

    def test_says_what_it_sent(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def all_of_it(delivery: BatchDelivery) -> None:
            delivery.acknowledged = {index: index for index in range(delivery.size)}

        self.delivers(monkeypatch, all_of_it)
        place(at=timezone.now(), lines=[("p1", 1, "1")])
        drain_batch(DrainState())
        span = only(spans, "drain")
        assert span.status.is_unset
        assert (
            told(span)["messaging.batch.message_count"] == told(span)["outbox.events_settled"] == 2
        )

    def test_whose_kafka_is_away_failed(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(delivery: BatchDelivery) -> None:
            delivery.error = "broker is down"

        self.delivers(monkeypatch, away)
        place(at=timezone.now(), lines=[("p1", 1, "1")])
        drain_batch(DrainState())
        span = only(spans, "drain")
        assert failure(span) == "broker is down"
        assert told(span)["error.type"] == "transport"

    def test_with_a_refused_message_failed(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def too_large(delivery: BatchDelivery) -> None:
            delivery.refused = dict.fromkeys(range(delivery.size), "too large")
            delivery.fatal = True

        self.delivers(monkeypatch, too_large)
        place(at=timezone.now(), lines=[("p1", 1, "1")])
        drain_batch(DrainState())
        span = only(spans, "drain")
        assert failure(span).endswith(": too large")
        assert told(span)["error.type"] == "refused"
        assert told(span)["outbox.events_refused"] > 0

    def test_without_a_database_failed(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(limit: int, **_: object) -> list[int]:
            raise InterfaceError("connection lost")

        monkeypatch.setattr(claim, "claim_lanes", gone)
        with pytest.raises(InterfaceError):
            drain_batch(DrainState())
        assert recorded(only(spans, "drain")) == ["connection lost"]


class TestABridge:
    def trigger(self, *events: EventEnvelope) -> bool:
        """The sending part of a bridge alone, without a consumer."""
        sending = Dispatch(ROUTE, conf.BRIDGE, Partitions(), on_sent=lambda _: None)
        return sending.trigger([letters.chunk(events)]) is not None

    def test_sends_its_own_span_along(
        self, spans: InMemorySpanExporter, sent: dict[str, Any]
    ) -> None:
        assert self.trigger(event("1"), event("2"), event("3", ""))
        span = only(spans, "bridge record_sales")
        [link] = span.links
        assert f"{link.context.trace_id:032x}" == TRACEPARENT[3:35]
        assert span.context is not None
        assert sent["headers"]["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"
        assert told(span)["messaging.batch.message_count"] == 3
        assert told(span)["messaging.destination.name"] == letters.TOPIC

    def test_sends_its_ids_along_where_nobody_takes_spans(self, sent: dict[str, Any]) -> None:
        """For the lines of the task's log."""
        assert self.trigger(event("1"))
        first = sent["headers"]["traceparent"]
        assert self.trigger(event("1"))
        assert TRACEPARENT_SHAPE.fullmatch(first)
        assert sent["headers"]["traceparent"] != first
        with tracing.step("task", tracing.CONSUMER, parent=first):
            version, trace, span, flags = tracing.current_traceparent().split("-")
        assert [version, trace, flags] == [
            part for i, part in enumerate(first.split("-")) if i != 2
        ]
        assert span != first.split("-")[2]

    def test_without_redis_failed(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(name: str, **options: object) -> None:
            raise RedisAway("no route to Redis")

        monkeypatch.setattr(current_app, "send_task", away)
        assert not self.trigger(event("1"))
        assert recorded(only(spans, "bridge record_sales")) == ["no route to Redis"]

    def test_links_a_hundred_traces_at_most(
        self, spans: InMemorySpanExporter, sent: dict[str, Any]
    ) -> None:
        traces = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 131)]
        self.trigger(*[event("1", trace) for trace in [*traces, *traces]])
        span = only(spans, "bridge record_sales")
        assert (len(span.links), told(span)["outbox.links_left_out"]) == (100, 30)


class TestATask:
    NAME = "tests.effects"

    @pytest.fixture(autouse=True)
    def positions(self) -> None:
        letters.create_positions()

    def run(self, effect: Effect, *events: EventEnvelope) -> int:
        task = effect_task(
            name=self.NAME, handler=letters.HANDLER, effect=effect, decode=refuse_none
        )
        try:
            return int(task(chunks=[letters.chunk(events).to_task()]))
        finally:
            current_app.tasks.unregister(self.NAME)

    def test_says_what_it_applied(self, spans: InMemorySpanExporter) -> None:
        assert self.run(letters.Applied(), event("1"), event("2")) == 2
        span = only(spans, f"task {self.NAME}")
        assert span.status.is_unset
        assert told(span)["outbox.events_applied"] == 2
        assert len(span.links) == 1

    def test_with_an_event_that_fails_records_its_error_once(
        self, spans: InMemorySpanExporter
    ) -> None:
        applied = letters.Applied("bad")
        applied.error = ValueError("half a character: \udcff")
        assert self.run(applied, *[event(text) for text in ("1", "2", "bad", "behind")]) == 2
        span = only(spans, f"task {self.NAME}")
        assert recorded(span) == ["half a character: \\udcff"]
        assert failure(span) == "ValueError: half a character: \\udcff"
        assert told(span)["error.type"] == "ValueError"
        assert told(span)["outbox.events_applied"] == 2

    def test_whose_database_is_away_failed(self, spans: InMemorySpanExporter) -> None:
        applied = letters.Applied("1")
        applied.error = ConnectionError("nobody there")
        assert self.run(applied, event("1")) == 0
        assert recorded(only(spans, f"task {self.NAME}")) == ["nobody there"]

    def test_that_finds_its_event_killing_failed(self, spans: InMemorySpanExporter) -> None:
        BridgePosition.objects.update(attempts=5)
        task = letters.chunk([event("1")]).to_task()
        task["attempt"] = 5
        for _ in range(conf.BRIDGE.suspect_tries + 1):
            with tracing.step("task", tracing.CONSUMER), suppress(KeyboardInterrupt):
                run_chunks(handler=letters.HANDLER, chunks=[task], effect=_killed)
        last = spans.get_finished_spans()[-1]
        assert told(last)["error.type"] == "never_ended"


def _killed(events: Sequence[EventEnvelope]) -> None:
    """As near as a test gets to a process that ends: no handler of errors sees it."""
    raise KeyboardInterrupt


class TestARedrive:
    def test_links_its_letters_and_records_why_they_fail_again(
        self, spans: InMemorySpanExporter, sent: dict[str, Any]
    ) -> None:
        letters.create_positions()
        applied = letters.Applied("bad")
        letters.run(applied, letters.chunk([event("bad")]))
        DeadLetter.objects.update(next_attempt_at=timezone.now())
        spans.clear()
        assert due.send_due() == 1
        span = only(spans, "redrive record_sales")
        assert told(span)["outbox.letters"] == 1
        assert span.context is not None
        assert f"{span.context.span_id:016x}" in sent["headers"]["traceparent"]
        spans.clear()
        with tracing.step("task", tracing.CONSUMER, parent=sent["headers"]["traceparent"]):
            redrive.run_letters(
                handler=letters.HANDLER, letters=sent["kwargs"]["letters"], effect=applied
            )
        tried = only(spans, "task")
        assert recorded(tried) == ["poison"]
        assert tried.parent is not None
        assert tried.parent.span_id == span.context.span_id
        assert [link.context.span_id for link in tried.links] == [int(TRACEPARENT[36:52], 16)]

    def test_with_nothing_due_is_not_told(self, spans: InMemorySpanExporter) -> None:
        due._send_due_of(ROUTE)
        assert spans.get_finished_spans() == ()


@pytest.mark.parametrize("text", ["", "x", "00-1-2-3", TRACEPARENT.upper(), f"ff{TRACEPARENT[2:]}"])
def test_a_traceparent_of_somebody_else_that_is_none_is_no_link(
    spans: InMemorySpanExporter, text: str
) -> None:
    with tracing.step("x", tracing.CONSUMER, parent=text) as step:
        step.link([text, TRACEPARENT])
    span = only(spans, "x")
    assert (len(span.links), span.parent) == (1, None)
