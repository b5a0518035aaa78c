"""What processes say of themselves: they are there, and one that ends without a word is missed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from subprocess import PIPE

import pytest
import redis
from django.conf import settings

from devtools.testing.heartbeats import forget_heartbeats
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import running_together, spec_of
from devtools.testing.series import metrics_of_ours
from eventsite.rollout import Version
from eventsite.web.gateway.metrics import SOCKETS_CLOSED
from notifications.metrics import LATE_SENDS
from operations.broker import ask_redis
from operations.judge import Judge
from operations.reading import Reading, answered
from operations.snapshot import Heard, Snapshot, take
from outbox import conf
from outbox.process import heartbeat
from outbox.process.heartbeat import Heartbeat, SeenProcess, kinds_seen, processes_seen
from outbox.process.rises import Rises
from outbox.watching import Alarm

HERE = "here"  # SERVICE_NAME of the processes of these tests


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


@pytest.fixture
def alone() -> None:
    """Nobody else has said anything."""
    forget_heartbeats()


def ours(server: redis.Redis) -> list[SeenProcess]:
    return [seen for seen in processes_seen(server) if seen.said.name == HERE]


def snapshot() -> Snapshot:
    """With Redis alone."""
    heard = Heard(postgres=Reading.begun(), redis=answered(ask_redis()), kafka=Reading.begun())
    return take(heard, Judge(settings.WIRING.alarms))


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("alone")
def test_processes_are_seen_while_they_live_and_gone_when_they_stop(server: redis.Redis) -> None:
    specs = [
        spec_of(name, SERVICE_NAME=HERE, BUILD=build)
        for name, build in (("worker-outbox", "sha-1"), ("beat", "sha-2"))
    ]
    with running_together(specs) as processes:
        assert settles(lambda: len(ours(server)) == 2)
        beat, worker = ours(server)
        assert (beat.said.kind, worker.said.kind) == ("beat", "worker")
        assert {beat.said.pid, worker.said.pid} == {process.pid for process in processes}
        assert worker.said.queues == ("outbox",)
        assert worker.age < heartbeat.GONE_SECONDS
        assert (worker.said.build, beat.said.build) == ("sha-1", "sha-2")
        versions = [Version(beat.said.release, build) for build in ("sha-1", "sha-2")]
        shown = snapshot()
        assert set(versions) <= set(shown.versions)
        assert all(f"{version}" in shown.several for version in versions)
        assert settles(lambda: ours(server)[1].said.figures["tasks_begun"] > 0)
        assert {"beat", "worker"} <= kinds_seen(server)
        for process in processes:
            process.stop()
        assert settles(lambda: not ours(server))


@pytest.mark.usefixtures("alone")
def test_one_that_ends_without_a_word_is_missed_until_another_has_its_name(
    server: redis.Redis, settings: object
) -> None:
    settings.SERVICE_NAME = HERE  # type: ignore[attr-defined]
    dead = Heartbeat("web")
    dead.beat()
    key = f"{heartbeat._PREFIX}{dead._id}"

    def silent_for(seconds: float) -> Snapshot:
        server.pexpire(key, int((heartbeat.GONE_SECONDS - seconds) * 1000))
        return snapshot()

    assert [row.state for row in silent_for(2).processes] == ["green"]
    assert "WebAbsent" not in {alert.name for alert in silent_for(2).alerts}
    [silent] = silent_for(20).processes
    assert silent.state == "grey"
    assert silent.age >= 20
    assert silent.reason.startswith("no data for ")
    assert silent.reason.endswith(": it sends no heartbeats")
    assert "WebAbsent" in {alert.name for alert in silent_for(20).alerts}
    assert [row.state for row in silent_for(61).processes] == ["red"]

    next_one = Heartbeat("web")
    next_one.beat()
    shown = silent_for(61)
    assert sorted((row.state, row.replaced) for row in shown.processes) == [
        ("green", False),
        ("grey", True),
    ]
    assert "WebAbsent" not in {alert.name for alert in shown.alerts}
    next_one.end()
    assert [row.seen.said.pid for row in snapshot().processes] == [dead._pid]


@pytest.mark.usefixtures("alone")
def test_a_relay_is_missed_where_one_has_run(server: redis.Redis) -> None:
    assert "relay" not in {station.hop.group for station in snapshot().stations}
    relay = Heartbeat("relay", figures=lambda: {"relay_consuming": 0.0, "relay_kafka_up": 1.0})
    relay.beat()
    shown = snapshot()
    assert "relay" in {station.hop.group for station in shown.stations}
    assert "RelayNotConsuming" in {alert.name for alert in shown.alerts}
    relay.end()
    assert "RelayAbsent" in {alert.name for alert in snapshot().alerts}


OF_COUNTERS = [alarm for alarm in settings.WIRING.alarms if alarm.rises]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("alarm", OF_COUNTERS, ids=lambda alarm: alarm.name)
def test_a_counter_that_rises_is_an_alarm_for_who_looks_once(alarm: Alarm) -> None:
    """Of the process itself."""
    kind = "relay" if alarm.name.startswith("Relay") else "web"
    process = Heartbeat(kind)
    process.beat()
    assert alarm.name not in {alert.name for alert in snapshot().alerts}
    name, _, selector = alarm.figure.partition("{")
    counter = metrics_of_ours()[name.removesuffix("_total")]
    labels = dict.fromkeys(counter._labelnames, "x") | dict(re.findall(r'(\w+)="(.*?)"', selector))
    (counter.labels(**labels) if labels else counter).inc(alarm.bound + 1)  # type: ignore[attr-defined]
    process.beat()
    assert alarm.name in {alert.name for alert in snapshot().alerts}


@pytest.mark.usefixtures("alone")
def test_another_label_of_the_counter_is_none_of_the_alarm() -> None:
    process = Heartbeat("web")
    SOCKETS_CLOSED.labels("ws", "1000").inc()
    process.beat()
    assert "WebSocketsFail" not in {alert.name for alert in snapshot().alerts}


@pytest.mark.usefixtures("alone")
def test_what_a_child_counts_is_said_by_its_parent() -> None:
    """A worker's children work, and have no heartbeat."""
    parent = Heartbeat("worker")
    count = (
        "from prometheus_client import Counter;"
        "Counter('outbox_floor_undercut_total', 'x').inc();"
        "print('counted', flush=True); input()"
    )
    command = [sys.executable, "-c", count]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "counted\n"
        parent.beat()
        assert "FloorUndercut" in {alert.name for alert in snapshot().alerts}
        child.communicate("\n")
    parent.beat()
    assert "FloorUndercut" in {alert.name for alert in snapshot().alerts}, "although it has ended"


def test_what_has_risen_counts_for_its_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    alarm = next(alarm for alarm in OF_COUNTERS if alarm.name == "LateSends")
    rises, own = Rises([alarm], [os.getpid()]), [os.getpid()]
    assert rises.within(own) == {}, "what it was before"
    LATE_SENDS.inc(2)
    assert rises.within(own) == {alarm.figure: 2}
    now += 300
    LATE_SENDS.inc()
    assert rises.within(own) == {alarm.figure: 3}
    now += 301
    assert rises.within(own) == {alarm.figure: 1}
    now += 300
    assert rises.within(own) == {}


@pytest.mark.usefixtures("alone")
def test_two_versions_and_queues_without_a_worker_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = conf.release()
    Heartbeat("worker", queues=lambda: ["outbox"]).beat()
    monkeypatch.setattr("outbox.conf.release", lambda: "a later one")
    Heartbeat("worker", queues=lambda: ["upkeep"]).beat()
    shown = snapshot()
    assert {each.release for each in shown.versions} == {before, "a later one"}
    assert "versions run at once: " in shown.several
    [tasks] = [station for station in shown.stations if station.hop.name == "tasks"]
    assert tasks.state == "amber"
    [note] = [note for note in tasks.hop.notes if note.startswith("no worker serves")]
    assert "fanout" in note
    assert "outbox" not in note


@pytest.mark.usefixtures("alone")
def test_a_heartbeat_under_way_is_not_written_behind_the_end(
    server: redis.Redis, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SERVICE_NAME = HERE  # type: ignore[attr-defined]
    ends = Heartbeat("web")
    is_asked, goes_on = threading.Event(), threading.Event()
    said = ends._said

    def slowly() -> heartbeat.Said:
        is_asked.set()
        goes_on.wait(PATIENCE)
        return said()

    monkeypatch.setattr(ends, "_said", slowly)
    threads = [threading.Thread(target=work) for work in (ends.beat, ends.end)]
    threads[0].start()
    assert is_asked.wait(PATIENCE)
    threads[1].start()
    assert settles(ends._ended.is_set)
    time.sleep(0.2)  # long enough for a deletion
    goes_on.set()
    for thread in threads:
        thread.join()
    ends.beat()
    assert not ours(server)
