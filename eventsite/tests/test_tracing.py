"""Spans as they leave real processes, at a real receiver; and processes whose receiver is unavailable."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from devtools.localstack import PLAN
from devtools.provider.client import provider_process
from devtools.provider.server import AnswerRule
from devtools.testing import zygote
from devtools.testing.pipeline import settles
from devtools.testing.processes import (
    Process,
    child_environment,
    free_port,
    running_together,
    spec_of,
)
from devtools.testing.receiver import Received, Receiver, one_span, receiving
from devtools.testing.web import Answer, Web, web_process
from eventsite.telemetry import otlp
from outbox.models import InboxReceipt, OutboxEvent

PIPELINE = PLAN.pipeline
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SIMPLE = {"user_id": "u1", "amount": 42.5}
SMS = {"recipient": "+15550001", "channel": "sms", "content": "Hello", "priority": "high"}
# Milliseconds: what arrives within a test was sent by a process that stopped.
AT_THE_END = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}


def pipeline(**environment: str) -> AbstractContextManager[list[Process]]:
    """All processes, each under its own name."""
    return running_together(
        [spec_of(name, SERVICE_NAME=name, LOG_LEVEL="INFO", **environment) for name in PIPELINE]
    )


def order_applied(started: Sequence[Process]) -> Answer:
    """Place an order and wait until its two handlers are done with it; the answer."""
    web = Web(urlsplit(started[0].health).port or 0, started[0])
    answer = web.post("/orders", SIMPLE, {"traceparent": TRACEPARENT})
    assert answer.status == 200
    assert settles(lambda: InboxReceipt.objects.count() == 2)
    return answer


def lines(logs: Iterable[Path]) -> list[dict[str, Any]]:
    texts = [line for log in logs for line in log.read_text().splitlines()]
    return [json.loads(line) for line in texts if line[:1] == "{" and line[-1:] == "}"]


def about(receiver: Receiver, name: str, span: Received) -> list[Received]:
    """Spans of this name that link another one."""
    link = (span.trace_id, span.span_id)
    return [each for each in receiver.named(name) if link in each.links]


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of one that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("pipeline")
def test_an_order_is_seen_from_the_request_to_its_effects() -> None:
    with receiving() as receiver:
        with pipeline(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **AT_THE_END) as started:
            answer = order_applied(started)
            assert [process.stop() for process in started] == [0] * len(started)
            spoken = {line["event"]: line for line in lines(each.log for each in started)}
        assert receiver.paths == {"/v1/traces"}

    [request] = receiver.named("POST orders")
    assert (request.service, request.kind) == ("web", "SERVER")
    assert (request.trace_id, request.parent_id, request.failed) == (TRACE, CALLER, False)
    told = request.attributes
    assert (told["http.route"], told["http.response.status_code"]) == ("orders", 200)
    assert answer.header("traceparent") == f"00-{TRACE}-{request.span_id}-01"
    stored = set(OutboxEvent.objects.values_list("traceparent", flat=True))
    assert stored == {answer.header("traceparent")}

    drain = about(receiver, "drain", request)[0]
    assert (drain.service, drain.kind, drain.parent_id) == ("worker-outbox", "PRODUCER", "")
    assert drain.attributes["messaging.system"] == "kafka"
    assert drain.attributes["messaging.batch.message_count"] >= 1
    assert drain.attributes["outbox.lanes"]

    for handler, task in (
        ("record_sales", "analytics.record_sales"),
        ("record_processed_events", "orders.record_processed_events"),
    ):
        [bridge] = about(receiver, f"bridge {handler}", request)
        assert (bridge.service, bridge.kind) == ("bridge", "CONSUMER")
        [effect] = about(receiver, f"task {task}", request)
        assert (effect.service, effect.kind) == ("worker-effects", "CONSUMER")
        assert (effect.trace_id, effect.parent_id) == (bridge.trace_id, bridge.span_id)
        assert effect.attributes["outbox.events_applied"] == 1

    # No drain that found nothing is told of, though beat asks every second.
    assert all(each.attributes["outbox.events_settled"] for each in receiver.named("drain"))
    assert not any(span.failed for span in receiver.spans)
    named = {(span.trace_id, span.span_id) for span in receiver.spans}
    for event in ("request", "drained", "sent", "applied"):
        assert (spoken[event]["trace_id"], spoken[event]["span_id"]) in named, event


@pytest.mark.usefixtures("pipeline")
def test_a_notification_is_seen_from_the_request_to_the_webhook() -> None:
    """One trace from the caller over the request to each call of the provider, which gets it; between
    them the batches that made it ready, each with a link."""
    with receiving() as receiver, provider_process() as provider:
        provider.rules(AnswerRule(recipient=SMS["recipient"], status=500, times=1))
        given = {
            "PROVIDERS": json.dumps({"acme": {"kind": "webhook", "url": provider.url}}),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            **AT_THE_END,
        }
        with pipeline(**given) as started:
            web = Web(urlsplit(started[0].health).port or 0, started[0])
            path = "/api/v1/notifications"
            answer = web.post(path, SMS, {"traceparent": TRACEPARENT})
            assert answer.status == 201

            def delivered() -> bool:
                return bool(web.get(f"{path}/{answer.json['id']}").json["status"] == "delivered")

            assert settles(delivered)
            arrivals = provider.arrivals()
            assert [process.stop() for process in started] == [0] * len(started)

    [request] = receiver.named("POST api/v1/notifications")
    assert (request.trace_id, request.parent_id, request.failed) == (TRACE, CALLER, False)
    assert about(receiver, "drain", request)
    [bridge] = about(receiver, "bridge ready_high", request)
    [ready] = about(receiver, "task notifications.ready_high", request)
    assert (ready.trace_id, ready.parent_id) == (bridge.trace_id, bridge.span_id)

    calls = receiver.named("send sms")
    assert {(call.trace_id, call.parent_id) for call in calls} == {(TRACE, request.span_id)}
    assert {call.service for call in calls} == {"worker-notifications-high"}
    assert {call.kind for call in calls} == {"CLIENT"}
    tried = sorted((call.attributes["http.response.status_code"], call.failed) for call in calls)
    assert tried == [(200, False), (500, True)]
    got = {arrival.headers["traceparent"] for arrival in arrivals}
    assert got == {f"00-{TRACE}-{call.span_id}-01" for call in calls}


@pytest.mark.usefixtures("pipeline")
def test_a_receiver_that_hangs_holds_up_nothing_and_is_told_of_once() -> None:
    with silent_server() as url:
        away = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with pipeline(OTEL_BSP_SCHEDULE_DELAY="200", **away) as started:
            order_applied(started)
            logs = [each.log for each in started]

            def complaints() -> Counter[str]:
                said = [line for line in lines(logs) if line["event"] == "spans_not_sent"]
                return Counter(line["service"] for line in said)

            assert settles(lambda: {"web", "worker-outbox", "bridge"} <= complaints().keys())
            codes = [process.stop() for process in started]  # otherwise SIGKILL
            assert codes == [0] * len(codes)
            # once a process; worker-effects has two
            assert all(
                count <= 1 + (name == "worker-effects") for name, count in complaints().items()
            )
            said = [line for line in lines(logs) if "opentelemetry" in line["logger"]]
            assert said == []


@pytest.fixture
def exporter_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an exporter does to its library's log is undone."""
    monkeypatch.setattr(logging.getLogger(otlp.EXPORTER_LOG), "filters", [])


@pytest.mark.usefixtures("exporter_log")
def test_a_receiver_that_goes_and_comes_is_two_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with monkeypatch.context() as patched:
        patched.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1.5")  # seconds: time for a second try
        exporter = otlp._Exporter(f"http://127.0.0.1:{port}/v1/traces")
    for name in ("first", "second"):
        exporter.export([one_span(name)])
    [line] = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    assert line["event"] == "spans_not_sent"
    assert "refused" in line["error"]
    with receiving(port) as receiver:
        exporter.export([one_span("third")])
        exporter.export([one_span("fourth")])
    assert [span.name for span in receiver.spans] == ["third", "fourth"]
    [line] = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    assert (line["event"], line["lost"]) == ("spans_sent_again", 2)
    exporter.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("exporter_log")
def test_a_stop_waits_two_seconds_for_a_receiver_that_hangs() -> None:
    with silent_server() as url:
        sender = otlp._Sender(url)
        sender.on_end(one_span("last"))
        began = time.monotonic()
        sender.shutdown()
        assert 1.5 < time.monotonic() - began < 8
        sender.shutdown()  # a worker's process says farewell twice
        assert sender._batches is not None
        sender._batches.span_exporter.shutdown()
    assert settles(lambda: not _sending())


def _sending() -> bool:
    return any(thread.name.startswith("OtelBatch") for thread in threading.enumerate())


def test_a_database_that_is_away_is_an_error_of_the_request(db: None) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with receiving() as receiver:
        given = {"DATABASE_URL": nowhere, "JAEGER_ENDPOINT": f"{receiver.url}/"}
        with web_process(**given, **AT_THE_END) as web:
            assert web.post("/orders", SIMPLE).status == 503
            page = web.get("/orders/no-such-page/at-all", traceparent=TRACEPARENT)
            assert page.status in (401, 404)
            assert web.get("/orders?limit=%31").status == 503  # no hot path takes a percent sign
    [stored] = receiver.named("POST orders")
    assert (stored.service, stored.failed, stored.parent_id) == ("eventsite", True, "")
    assert stored.attributes["http.response.status_code"] == 503
    assert stored.attributes["error.type"] == "503"
    assert stored.errors[0].startswith("outbox.database.unit_of_work.NotStored: ")
    [listed] = receiver.named("GET orders")  # by Django, on its own thread
    assert listed.failed
    assert "OperationalError" in listed.errors[0]
    [unknown] = receiver.named("GET")
    assert (unknown.trace_id, unknown.failed) == (TRACE, False)
    assert "http.route" not in unknown.attributes


def test_a_trace_that_its_caller_does_not_record_is_not_recorded_here(db: None) -> None:
    with receiving() as receiver:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_SERVICE_NAME": "shop"}
        with web_process(**given, **AT_THE_END) as web:
            answer = web.get("/openapi.json", traceparent=f"00-{TRACE}-{CALLER}-00")
            version, trace_id, span_id, flags = answer.header("traceparent").split("-")
            assert (version, trace_id, flags) == ("00", TRACE, "00")
            assert span_id != CALLER
            web.get("/swagger/", traceparent=TRACEPARENT)
    assert receiver.named("GET openapi.json") == []
    [recorded] = receiver.named("GET swagger/")
    assert recorded.service == "shop"


LOADED = """
import json, sys, threading
import django
django.setup()
from outbox import tracing
before = [thread.name for thread in threading.enumerate()]
with tracing.step("something", tracing.CONSUMER) as step:
    step.link(["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
    traceparent = tracing.current_traceparent()
after = [thread.name for thread in threading.enumerate()]
exporter = any(name.startswith("opentelemetry.exporter") for name in sys.modules)
print(json.dumps([exporter, before, len(after) - len(before), bool(traceparent)]))
"""


@pytest.mark.parametrize(
    ("given", "on"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "JAEGER_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"JAEGER_ENDPOINT": "http://127.0.0.1:9"}, True),
    ],
)
def test_without_a_receiver_no_exporter_is_loaded_and_no_thread_is_begun(
    db: None, given: dict[str, str], on: bool
) -> None:
    """Ids there are all the same: log lines and the next process have them."""
    result = zygote.run("-c", LOADED, environment=child_environment(**given))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [on, ["MainThread"], int(on), True]
