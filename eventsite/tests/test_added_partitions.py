"""Somebody adds a partition to a topic of ours: what is known goes on, and one command takes it in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from django.core.management import CommandError, call_command
from structlog.testing import capture_logs

from devtools.probe import queries as probe_queries
from devtools.probe.events import PROBE_TOPIC
from devtools.probe.models import ProbeEntry
from devtools.testing.added_partitions import ADDED, add_partition, write_foreign
from devtools.testing.advice import advised, follow
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, make_anew, settles
from devtools.testing.processes import running, spec_of
from eventsite.tests.test_bridge import apply_at_once, publish
from eventsite.tests.test_bridge import running as running_bridge
from outbox import conf
from outbox.bridge.bridge import Bridge
from outbox.models import BridgePosition
from outbox.process import task_queue

pytestmark = needs_apache_kafka  # Tansu adds no partitions
COMMAND = "sync_routes --partitions"


@pytest.fixture(autouse=True)
def _topic(pipeline: None) -> Iterator[None]:
    """With as many partitions as the event map says, before and after."""
    yield
    make_anew(PROBE_TOPIC.name)


@pytest.fixture
def applied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "send", apply_at_once)


@contextmanager
def bridge(unheld_after: float = 600.0) -> Iterator[Bridge]:
    stop = threading.Event()
    policy = replace(conf.BRIDGE, stall_after=600.0, unheld_after=unheld_after)
    started = Bridge(conf.route_named(PROBE_HANDLER), stop=stop, policy=policy)
    with running_bridge(started, stop):
        assert settles(lambda: bool(started._partitions))
        yield started


def said(*command: str) -> str:
    out = StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def foreign_numbers() -> list[int]:
    entries = ProbeEntry.objects.filter(key="foreign").order_by("id")
    return list(entries.values_list("seq", flat=True))


@pytest.mark.usefixtures("applied_at_once")
class TestABridge:
    def test_goes_on_and_takes_the_new_one_in_from_its_beginning_when_told(self) -> None:
        with bridge() as started, capture_logs() as logs:
            client = started.group.client
            publish("a")
            add_partition()
            write_foreign("foreign", range(1, 4))
            assert settles(lambda: not started.reads_all)
            publish("a")
            assert settles(lambda: probe_queries.verdict().applied == 2)
            assert foreign_numbers() == []
            [error] = [line for line in logs if line["event"] == "partitions_unread"]
            assert (error["partitions"], advised(error["advice"])) == ([ADDED], [COMMAND])

            follow(error["advice"])
            assert settles(lambda: foreign_numbers() == [1, 2, 3])
            assert started.reads_all
            assert started.group.client is client
            write_foreign("foreign", range(4, 6))
            assert settles(lambda: foreign_numbers() == [1, 2, 3, 4, 5])

    def test_that_starts_later_reads_what_it_knows(self) -> None:
        add_partition()
        with bridge() as started:
            publish("a")
            assert settles(lambda: probe_queries.verdict().applied == 1)
            assert not started.reads_all

    def test_is_not_left_alone_where_another_holds_the_unread_one(self) -> None:
        add_partition()
        with bridge(3.0) as first, bridge(3.0) as second:
            clients = first.group.client, second.group.client
            assert settles(lambda: bool(first.group.partitions and second.group.partitions))
            assert not settles(
                lambda: (first.group.client, second.group.client) != clients, within=12
            )
            assert {first.reads_all, second.reads_all} == {True, False}


def test_readiness_of_the_bridge_says_so_until_it_is_taken_in() -> None:
    with running(*_command_of_bridge()) as process:
        ready = process.health.replace("/health", "/health/ready?strict=1")
        assert settles(lambda: _status(ready) == (200, "healthy"))
        add_partition()
        assert settles(lambda: _status(ready) == (503, "unhealthy"))
        follow(COMMAND_IN_WORDS)
        assert settles(lambda: _status(ready) == (200, "healthy"))
        assert "bridge_failed" not in process.log.read_text()


COMMAND_IN_WORDS = f"manage.py {COMMAND}"


def _command_of_bridge() -> tuple[tuple[str, ...], dict[str, str], str | None]:
    spec = spec_of("bridge")
    return tuple(spec.command), dict(spec.environment), spec.ready_url


def _status(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)["checks"]["partitions"]
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["checks"]["partitions"]


def test_the_preparation_goes_through_and_names_the_command() -> None:
    add_partition()
    said("create_topics")
    for command in ("sync_routes", "check_servers"):
        lines = [line for line in said(command).splitlines() if COMMAND in line]
        assert len(lines) == 1
    follow(lines[0])
    assert BridgePosition.objects.get(handler=PROBE_HANDLER, partition=ADDED).next_offset == 0
    for command in ("create_topics", "sync_routes", "check_servers"):
        assert COMMAND not in said(command)


def test_a_replay_names_the_command() -> None:
    add_partition()
    with pytest.raises(CommandError) as refused:
        call_command("replay", handler=PROBE_HANDLER, stdout=StringIO())
    follow(str(refused.value))
    with pytest.raises(CommandError, match="add --yes"):
        call_command("replay", handler=PROBE_HANDLER, stdout=StringIO())


@pytest.mark.usefixtures("applied_at_once")
def test_a_topic_recreated_without_it_is_no_circle() -> None:
    add_partition()
    follow(COMMAND_IN_WORDS)
    make_anew(PROBE_TOPIC.name)
    with pytest.raises(CommandError) as refused:
        call_command("sync_routes", stdout=StringIO())
    follow(str(refused.value))
    for command in ("create_topics", "sync_routes", "check_servers"):
        said(command)
    with pytest.raises(CommandError, match="--since earliest"):
        call_command("replay", handler=PROBE_HANDLER, stdout=StringIO())
    with bridge() as started:
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 1)
        add_partition()
        write_foreign("foreign", range(1, 3))
        assert settles(lambda: foreign_numbers() == [1, 2])
        assert started.reads_all
