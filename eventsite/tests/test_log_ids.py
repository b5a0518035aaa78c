"""Which ids a line of the log has: about one event its own three, about many their correlation ids
and the span of their batch. No process of these tests sends spans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from celery import current_app
from django.utils import timezone

from devtools.testing.histories import place
from eventsite.telemetry import logs
from eventsite.tests.test_spans import TRACEPARENT, event, sent
from outbox import conf, tracing
from outbox.bridge import dispatch
from outbox.bridge.confirm import Confirm
from outbox.bridge.group import Group
from outbox.bridge.partition import Flight, Partition, Partitions
from outbox.drain import report, run
from outbox.drain.batch import drain_batch
from outbox.drain.run import Drain
from outbox.drain.state import DrainState
from outbox.handlers import apply
from outbox.handlers.foreign import refuse_none
from outbox.handlers.task import effect_task, run_chunks
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery, OutgoingMessage
from outbox.models import OutboxEvent
from outbox.tests import letters
from outbox.tests.test_drain import Noted, kafka, write
from outbox.tests.test_drain_letters import IMPATIENT, drain_on

__all__ = ["kafka", "sent"]  # fixtures

pytestmark = pytest.mark.django_db

ROUTE = conf.route_named(letters.HANDLER)
TRACE_ID, SPAN_ID = TRACEPARENT.split("-")[1:3]
OWN = (TRACE_ID, SPAN_ID, "c")


@pytest.fixture(autouse=True)
def informed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of level info too, through the processors of every process."""
    logger = structlog.wrap_logger(
        logs._NamedLogger("tests"),
        processors=structlog.get_config()["processors"],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    for module in (apply, dispatch, report, run):
        monkeypatch.setattr(module, "log", logger)


def lines(capfd: pytest.CaptureFixture[str], name: str) -> list[dict[str, Any]]:
    found = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    return [line for line in found if line["event"] == name]


def ids(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["trace_id"], line["span_id"], line["correlation_id"]


def is_of_a_batch(line: dict[str, Any]) -> bool:
    return (
        len(line["trace_id"]) == 32
        and len(line["span_id"]) == 16
        and line["trace_id"] != TRACE_ID
        and "correlation_id" not in line
    )


class TestALineAboutManyEvents:
    @pytest.mark.parametrize(("error", "name"), [("", "drained"), ("away", "drain_incomplete")])
    def test_of_the_drain(
        self,
        error: str,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        def send(messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
            acknowledged = {} if error else {index: index for index in range(len(messages))}
            return BatchDelivery(size=len(messages), acknowledged=acknowledged, error=error)

        monkeypatch.setattr(producer, "send", send)
        place(at=timezone.now(), lines=[("p1", 1, "1")])
        drain_batch(DrainState())
        [line] = lines(capfd, name)
        assert is_of_a_batch(line)
        assert line["correlation_ids"] is not None

    def test_of_the_bridge_and_of_the_task_that_it_sent(
        self, sent: dict[str, Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        letters.create_positions()
        sending = dispatch.Dispatch(ROUTE, conf.BRIDGE, Partitions(), on_sent=lambda _: None)
        chunk = letters.chunk([event("1"), event("2")])
        traceparent = sending.trigger([chunk])
        assert traceparent is not None
        [line] = lines(capfd, "sent")
        assert is_of_a_batch(line)
        assert line["correlation_ids"] == ["c"]
        with tracing.step("task", tracing.CONSUMER, parent=sent["headers"]["traceparent"]):
            run_chunks(handler=letters.HANDLER, effect=letters.Applied(), **sent["kwargs"])
        [applied] = lines(capfd, "applied")
        assert applied["trace_id"] == line["trace_id"]
        assert applied["span_id"] != line["span_id"]
        assert applied["correlation_ids"] == ["c"]
        flying = Partition(key=chunk.partition_key, topic_id=chunk.topic_id, position=0)
        flying.flight = Flight(chunk, 0.0, traceparent)
        group = cast(Group, SimpleNamespace(partitions=Partitions()))
        Confirm(ROUTE, conf.BRIDGE, group)._retry_later(flying, "deadline", 0.0)
        [retry] = lines(capfd, "chunk_retry")
        assert [retry[name] for name in ("trace_id", "span_id", "correlation_ids")] == [
            line[name] for name in ("trace_id", "span_id", "correlation_ids")
        ]

    def test_of_a_task_that_nobody_sent(self, capfd: pytest.CaptureFixture[str]) -> None:
        letters.create_positions()
        name = "tests.log_ids"
        task = effect_task(
            name=name, handler=letters.HANDLER, effect=letters.Applied(), decode=refuse_none
        )
        try:
            task(chunks=[letters.chunk([event("1")]).to_task()])
        finally:
            current_app.tasks.unregister(name)
        [line] = lines(capfd, "applied")
        assert is_of_a_batch(line)


class TestALineAboutOneEvent:
    def test_that_is_parked_tried_again_and_dead(self, capfd: pytest.CaptureFixture[str]) -> None:
        letters.create_positions()
        applied = letters.Applied("bad")
        with tracing.step("task", tracing.CONSUMER):
            letters.run(applied, letters.chunk([event("bad")]))
        assert [ids(line) for line in lines(capfd, "event_parked")] == [OWN]
        for _ in range(ROUTE.tries):
            letters.make_due()
            with tracing.step("task", tracing.CONSUMER):
                letters.redrive_due(applied)
        out = capfd.readouterr().err
        for name, times in (("redrive_failed", ROUTE.tries - 1), ("event_dead", 1)):
            found = [json.loads(text) for text in out.splitlines()]
            assert [ids(each) for each in found if each["event"] == name] == [OWN] * times

    def test_of_another_producer_has_the_span_of_its_batch(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        letters.create_positions()
        with tracing.step("task", tracing.CONSUMER):
            letters.run(letters.Applied("bad"), letters.chunk([event("bad", "no-trace-at-all")]))
        [line] = lines(capfd, "event_parked")
        assert line["correlation_id"] == "c"
        assert (len(line["trace_id"]), len(line["span_id"])) == (32, 16)

    @pytest.mark.usefixtures("kafka")
    def test_that_kafka_refuses(self, capfd: pytest.CaptureFixture[str]) -> None:
        write(Noted("k", "bad"))
        OutboxEvent.objects.update(traceparent=TRACEPARENT, correlation_id="c")
        drain_on(Drain(IMPATIENT))
        out = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
        for name, times in (("message_refused", conf.DRAIN.refusals), ("message_dead", 1)):
            assert [ids(line) for line in out if line["event"] == name] == [OWN] * times
