"""The relay as a process: its health, its stop, its death, and what it can do without."""

from __future__ import annotations

import json
import socket
import urllib.request
from contextlib import suppress
from dataclasses import replace
from urllib.error import HTTPError

import pika
import pytest
from pika.exceptions import AMQPError

from devtools.relay import broker, evidence
from devtools.relay.account import account
from devtools.relay.messages import BAD, numbered
from devtools.testing import own_servers
from devtools.testing.installed import needs_rabbitmq, on_the_stand_in
from devtools.testing.patience import PATIENCE
from devtools.testing.processes import Process, Spec, running, running_together, spec_of
from devtools.testing.relay import a_policy, until
from outbox.rabbitmq.policy import RelayPolicy

pytestmark = needs_rabbitmq

# The names of the program that it replaces, and those that tell of what that one did not do.
METRICS = (
    "events_consumed_total",
    "events_published_total",
    "retry_attempts_total",
    "dead_letter_total",
    "processing_duration_seconds",
    "in_flight_events",
    "circuit_breaker_state",
    "duplicates_dropped_total",
    "dedupe_unavailable_total",
    "oldest_unacked_seconds",
)


def a_relay(policy: RelayPolicy, **environment: str) -> Spec:
    return spec_of(
        "relay",
        RABBITMQ_URL=policy.url,
        RABBITMQ_QUEUE=policy.queue,
        KAFKA_TOPIC=policy.topic,
        **environment,
    )


def ask(process: Process, path: str) -> tuple[int, str]:
    url = process.health.removesuffix("/health") + path
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(process: Process, name: str) -> float:
    text = ask(process, "/metrics")[1]
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.partition("{")[0].partition(" ")[0] == name
    )


def test_health_metrics_and_an_ordered_stop_without_postgresql() -> None:
    policy = a_policy("process")
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    # A canary would be counted among what is consumed.
    spec = a_relay(policy, DATABASE_URL=nobody, CANARY="off")
    with running(spec.command, spec.environment, spec.ready_url) as process:
        until(lambda: ask(process, "/readyz")[0] == 200, "it is ready")
        assert ask(process, "/healthz") == ask(process, "/health") == (200, '{"status": "alive"}')
        everything_well = {"rabbitmq": "healthy", "kafka": "healthy", "redis": "healthy"}
        body = json.loads(ask(process, "/health/ready")[1])
        assert body == {"status": "ready", "checks": everything_well}
        broker.publish(
            policy.url, policy.queue, [numbered("p", 1), BAD["no-json"], numbered("p", 1)]
        )
        until(lambda: metric(process, "dead_letter_total") == 1, "the dead letter is counted")
        until(lambda: metric(process, "events_consumed_total") == 3, "they are counted")
        until(lambda: metric(process, "events_published_total") == 1, "it is published")
        until(lambda: metric(process, "duplicates_dropped_total") == 1, "the other is dropped")
        shown = ask(process, "/metrics")[1]
        assert [name for name in METRICS if f"\n# TYPE {name} " not in shown] == []
        assert process.stop() == 0


@pytest.mark.skipif(on_the_stand_in, reason="the stand-in tells no consumer that its queue is gone")
def test_without_its_queue_it_is_alive_and_not_ready() -> None:
    policy = a_policy("process-queue")
    spec = a_relay(policy)
    with running(spec.command, spec.environment, spec.ready_url) as process:
        until(lambda: ask(process, "/readyz")[0] == 200, "it is ready")
        broker.delete(policy.url, policy.queue)
        until(lambda: ask(process, "/readyz")[0] == 503, "it is not ready")
        assert json.loads(ask(process, "/readyz")[1])["checks"]["rabbitmq"] == "unhealthy"
        assert ask(process, "/health")[0] == 200
        broker.declare(policy.url, policy.queue)
        until(lambda: ask(process, "/readyz")[0] == 200, "it is ready again")


@pytest.mark.skipif(
    on_the_stand_in, reason="the stand-in says nothing of connections that break off"
)
def test_a_stop_takes_leave_of_rabbitmq() -> None:
    """Of each connection; else its log has a warning for each stop."""
    policy = a_policy("leave")
    log = own_servers.rabbitmq_unit().program.log
    broker.publish(policy.url, policy.queue, [BAD["array"], numbered("leave", 1)])
    with running_together([a_relay(policy)]) as [process]:
        until(lambda: metric(process, "events_published_total") == 1, "it relays")
        until(lambda: metric(process, "dead_letter_total") == 1, "it has every connection")
        before = log.stat().st_size
        assert process.stop() == 0

    def broken_off() -> int:
        return log.read_bytes()[before:].count(b"client unexpectedly closed TCP connection")

    # The log is written later than the connections end: this one comes behind them.
    connection = pika.BlockingConnection(pika.URLParameters(policy.url))
    connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
    with suppress(AMQPError):
        connection.close()
    until(broken_off, "RabbitMQ tells of the one that was broken off")
    assert broken_off() == 1


def test_killed_again_and_again_loses_nothing() -> None:
    """What was under way may come twice, and behind its successors; everything else once."""
    policy = replace(a_policy("sigkill"), workers=2)
    sent = [numbered("kill", number) for number in range(6000)]
    broker.publish(policy.url, policy.queue, sent)
    for _ in range(3):
        with running_together([a_relay(policy, WORKER_COUNT="2")]) as [process]:
            before = broker.depth(policy.url, policy.queue)
            until(
                lambda: broker.depth(policy.url, policy.queue) < before - 300,  # noqa: B023
                "it relays",
            )
            process.kill()
    with running_together([a_relay(policy)]) as [process]:
        until(lambda: not broker.depth(policy.url, policy.queue), "the queue is empty", within=60)
        until(lambda: metric(process, "in_flight_events") == 0, "nothing is under way")
        until(lambda: metric(process, "relay_busy_events") == 0, "nobody is waited for", within=60)
        assert process.stop() == 0
    seen = account(sent, evidence.found(policy))
    assert (seen.lost, seen.altered, seen.misplaced) == ([], [], [])
    assert seen.in_kafka == len(sent)
    assert not seen.queued
    assert seen.duplicates <= 3 * 200
