"""Whoever does what a message says, to the letter, is rid of what it complains of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from structlog.testing import capture_logs

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC
from devtools.testing.added_partitions import delete_topic, make_with
from devtools.testing.advice import follow
from devtools.testing.pipeline import PROBE_HANDLER, drain_all, make_anew, settles
from eventsite.reports.journey import Journey, journey_of
from eventsite.tests.test_bridge import apply_at_once, publish, running
from outbox import conf
from outbox.audit.compare import MissingReason
from outbox.bridge.bridge import Bridge
from outbox.drain.batch import drain_batch
from outbox.drain.state import DrainState
from outbox.handlers import pause
from outbox.kafka import admin, producer
from outbox.lanes import claim
from outbox.models import BridgePosition, OutboxLane
from outbox.process import task_queue

pytestmark = pytest.mark.usefixtures("pipeline")


@pytest.fixture
def _topic_is_put_right() -> Iterator[None]:
    yield
    make_anew(PROBE_TOPIC.name)


@pytest.fixture
def applied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "send", apply_at_once)


def complaint(*command: str) -> str:
    """What a command says that fails, or its warnings and errors about Kafka and positions."""
    out, err = StringIO(), StringIO()
    try:
        call_command(*command, stdout=out, stderr=err)
    except CommandError as error:
        err.write(str(error))
    return f"{out.getvalue()}\n{err.getvalue()}"


def line_of(report: str, words: str) -> str:
    """The lines of a report about something: what was found, and what it means."""
    lines = report.splitlines()
    return "\n".join(
        line + "\n" + following
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if words in line
    )


def everything_is_well() -> None:
    for command in ("create_topics", "sync_routes", "check_servers"):
        call_command(command, stdout=StringIO())
    producer.discard()
    producer.warm_up(conf.partition_counts(), timeout=10)


@contextmanager
def bridge() -> Iterator[Bridge]:
    stop = threading.Event()
    policy = replace(conf.BRIDGE, stall_after=600.0, unheld_after=600.0)
    started = Bridge(conf.route_named(PROBE_HANDLER), stop=stop, policy=policy)
    with running(started, stop):
        yield started


def forget_positions() -> None:
    BridgePosition.objects.filter(handler=PROBE_HANDLER).delete()


class TestPositionsThatAreMissing:
    def test_in_the_report_on_servers(self) -> None:
        forget_positions()
        follow(line_of(complaint("check_servers"), f"{PROBE_HANDLER}: 0 positions"))
        everything_is_well()

    def test_in_a_replay(self) -> None:
        forget_positions()
        follow(complaint("replay", "--handler", PROBE_HANDLER))
        assert "add --yes" in complaint("replay", "--handler", PROBE_HANDLER)

    def test_in_the_audit_and_in_a_journey(self) -> None:
        event_id = published()
        forget_positions()
        assert MissingReason.NO_POSITION in complaint("audit", "--handler", PROBE_HANDLER)
        follow(MissingReason.NO_POSITION)
        assert MissingReason.NO_POSITION not in complaint("audit", "--handler", PROBE_HANDLER)
        forget_positions()
        follow(journey(event_id).stops[-1].detail)
        assert "sync_routes" not in journey(event_id).stops[-1].detail

    @pytest.mark.usefixtures("applied_at_once")
    def test_in_the_log_of_a_bridge_which_goes_on_by_itself(self) -> None:
        forget_positions()
        with capture_logs() as logs, bridge() as started:
            assert settles(lambda: not started.reads_all)
            [error] = [line for line in logs if line["event"] == "partitions_unread"]
            follow(error["advice"])
            assert settles(lambda: started.reads_all)
            publish("a")
            assert settles(lambda: probe_queries.verdict().applied >= 1)


def published() -> UUID:
    [event] = probe_services.draw(["a"])
    drain_batch(DrainState())
    return UUID(event.event_id)


def journey(event_id: UUID) -> Journey:
    found = journey_of(event_id)
    assert found is not None
    return found


@pytest.mark.usefixtures("_topic_is_put_right")
class TestATopic:
    @pytest.mark.parametrize(
        "command", [("sync_routes",), ("check_servers",), ("replay", "--handler", PROBE_HANDLER)]
    )
    def test_that_does_not_exist(self, command: tuple[str, ...]) -> None:
        delete_topic()
        text = complaint(*command)
        follow(line_of(text, PROBE_TOPIC.name) if command[0] == "check_servers" else text)
        follow(complaint("sync_routes"))  # it is a new one
        everything_is_well()

    @pytest.mark.parametrize("command", ["sync_routes", "replay", "audit"])
    def test_that_was_recreated(self, command: str) -> None:
        publish("a")
        make_anew(PROBE_TOPIC.name)
        more = {
            "sync_routes": (),
            "replay": ("--handler", PROBE_HANDLER),
            "audit": ("--handler", PROBE_HANDLER, "--repair"),
        }
        text = complaint(command, *more[command])
        assert "sync_routes --recreated" in text
        follow("\n".join(line for line in text.splitlines() if "--recreated" in line))
        assert "--recreated" not in complaint(command, *more[command])
        everything_is_well()

    @pytest.mark.usefixtures("applied_at_once")
    def test_that_was_recreated_in_the_log_of_a_bridge(self) -> None:
        publish("a")
        make_anew(PROBE_TOPIC.name)
        with capture_logs() as logs, bridge() as started:
            assert settles(lambda: any(line["event"] == "topic_made_anew" for line in logs))
            follow(next(line for line in logs if line["event"] == "topic_made_anew")["advice"])
            drain_all()
            assert settles(lambda: probe_queries.verdict().applied == 1)
            assert started.reads_all

    def test_with_fewer_partitions(self) -> None:
        publish("a")
        delete_topic()
        make_with(6)
        report = line_of(complaint("check_servers"), f"{PROBE_TOPIC.name}: 6 partitions")
        with pytest.raises(CommandError) as refused:
            follow(report)
        with pytest.raises(producer.PartitionMismatch) as mismatch:
            producer.warm_up(conf.partition_counts(), timeout=10)
        with pytest.raises(CommandError, match="Delete the topic"):
            follow(str(mismatch.value))
        delete_topic()
        follow(str(refused.value))
        everything_is_well()
        assert drain_batch(DrainState())


@pytest.mark.parametrize("setting", ["retention.ms", "segment.ms"])
def test_settings_of_a_topic(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(admin, "SEGMENT_MS", 2 * admin.SEGMENT_MS)
        admin.alter_retention([replace(PROBE_TOPIC, retention_hours=1)])
    found = f"{PROBE_TOPIC.name}: {setting}"
    before = line_of(complaint("check_servers"), found)
    assert before.startswith("warning")
    follow(before)
    assert line_of(complaint("check_servers"), found).startswith("ok")


def test_lanes_of_another_number() -> None:
    OutboxLane.objects.filter(lane=63).delete()
    with pytest.raises(claim.LaneMismatch) as mismatch:
        claim.compare_lanes()
    OutboxLane.objects.all().delete()  # "empty the table"
    follow(str(mismatch.value))
    claim.compare_lanes()


def test_a_handler_that_its_circuit_has_paused() -> None:
    key = PROBE_TOPIC.name, 0
    BridgePosition.objects.filter(handler=PROBE_HANDLER, partition=0).update(
        failure_run=conf.CIRCUIT.run
    )
    with capture_logs() as logs:
        assert pause.trip_if_broken(PROBE_HANDLER, key)
    [status] = pause.handler_statuses([PROBE_HANDLER])
    assert status.paused
    follow(next(line for line in logs if line["event"] == "circuit_tripped")["advice"])
    [status] = pause.handler_statuses([PROBE_HANDLER])
    assert not status.paused
