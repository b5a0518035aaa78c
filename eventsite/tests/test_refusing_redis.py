"""A Redis that answers with errors is waited out by every process, like one that is lost."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial

import psutil
import pytest
import redis
from django.conf import settings
from kombu.exceptions import OperationalError

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.testing.pipeline import settles
from devtools.testing.processes import Process, running_together, spec_of
from devtools.testing.refusing_redis import REFUSALS, refusing
from eventsite.celery import app
from outbox.drain.run import Drain
from outbox.models import InboxReceipt, OutboxEvent
from outbox.process.health import readiness
from outbox.process.task_queue import queue_length

# Seconds; two is what a worker may wait until it asks a Redis again that is back. Then messages wait
# for it, and until it takes the first its watchdog counts.
WATCHDOG_SECONDS = 6.0
NAMES = ("bridge", "worker-effects", "worker-outbox", "beat")


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete("probe", "unacked", "unacked_index")
        yield client


def draw() -> int:
    return len(probe_services.draw([f"key-{number}" for number in range(8)]))


def applied() -> int:
    return InboxReceipt.objects.count()


def said(process: Process, event: str) -> int:
    lines = (line for line in process.log.read_text().splitlines() if line.startswith("{"))
    return sum(json.loads(line).get("event") == event for line in lines)


def assert_alive(started: Sequence[Process]) -> None:
    """Nobody would start again what ends."""
    for process in started:
        assert process.child.poll() is None, process.last_lines(200)


def send_without_end() -> None:
    while True:
        app.send_task(
            "probe.append_entries",
            kwargs={"chunks": []},
            queue="probe",
            argsrepr="x" * 10_000,
            retry=False,
        )


def is_over(process: Process) -> bool:
    """A worker that had nothing to take may have met no error at all."""
    return said(process, "redis_lost") == said(process, "redis_back")


def processes_of(process: Process) -> int:
    """Each may say once that Redis is lost: a worker has a pool of them."""
    return 1 + len(psutil.Process(process.pid).children(recursive=True))


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("kind", REFUSALS)
def test_it_counts_as_unhealthy_and_takes_no_tasks(kind: str, broker: redis.Redis) -> None:
    assert (readiness().checks["redis"], queue_length("probe")) == ("healthy", 0)
    with refusing(kind, settings.REDIS_URL):
        assert settles(lambda: readiness().checks["redis"] == "unhealthy")
        assert math.isinf(queue_length("probe"))
    assert (readiness().checks["redis"], queue_length("probe")) == ("healthy", 0)


@pytest.mark.usefixtures("pipeline")
def test_every_process_waits_it_out(broker: redis.Redis) -> None:
    """One kind of refusal after the other, and the same processes all the time."""
    specs = [spec_of(name, WATCHDOG_SECONDS=str(WATCHDOG_SECONDS)) for name in NAMES]
    with running_together(specs) as started:
        events = 0
        for kind in REFUSALS:
            events = waited_out(kind, started, events)
    assert probe_queries.verdict().ok


def waited_out(kind: str, started: Sequence[Process], events: int) -> int:
    """The processes have applied so many events before; how many they have after it."""
    worker = started[NAMES.index("worker-effects")]
    before = {process.pid: said(process, "redis_lost") for process in started}
    events += draw()
    assert settles(lambda: applied() == events), kind
    os.killpg(worker.pid, signal.SIGSTOP)
    for _ in range(3):  # what waits there is no reason for a watchdog to end the worker
        app.send_task("probe.append_entries", kwargs={"chunks": []}, queue="probe")
    with refusing(kind, settings.REDIS_URL):
        os.killpg(worker.pid, signal.SIGCONT)
        events += draw()
        Drain().run()
        time.sleep(WATCHDOG_SECONDS + 3)
        assert_alive(started)
        assert applied() < events, kind
    events += draw()

    def all_applied() -> bool:
        assert_alive(started)
        return applied() == events

    assert settles(all_applied), kind
    assert settles(lambda: OutboxEvent.objects.filter(status=0).count() == 0), kind
    for process in started:
        assert settles(partial(is_over, process)), f"{kind}: {process.last_lines()}"
        assert process.child.poll() is None, process.last_lines()
        lost = said(process, "redis_lost") - before[process.pid]
        assert lost <= processes_of(process), f"{kind}: {process.log.read_text()}"
    assert said(worker, "redis_lost") > before[worker.pid], kind
    return events


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("kind", ["full", "replica"])
def test_a_worker_that_cannot_acknowledge_takes_tasks_again(kind: str, broker: redis.Redis) -> None:
    """What it could not acknowledge must not count as in its hands for ever."""
    spec = spec_of("worker-effects", WATCHDOG_SECONDS="600")
    with running_together([spec]) as [worker]:
        assert settles(lambda: len(psutil.Process(worker.pid).children()) == 2)
        pool = psutil.Process(worker.pid).children()
        for child in pool:
            child.suspend()  # messages are taken, but nobody begins with them
        for _ in pool:
            app.send_task("probe.append_entries", kwargs={"chunks": []}, queue="probe")
        assert settles(lambda: broker.hlen("unacked") == len(pool))
        with refusing(kind, settings.REDIS_URL):
            for child in pool:
                child.resume()
            assert settles(lambda: said(worker, "redis_lost") >= 1)
        app.send_task("probe.append_entries", kwargs={"chunks": []}, queue="probe")
        taken = settles(lambda: broker.llen("probe") == 0)
        assert taken, worker.last_lines()
        assert worker.child.poll() is None
    broker.delete("unacked", "unacked_index")


@pytest.mark.usefixtures("pipeline")
def test_a_redis_that_our_own_queues_have_filled_is_emptied_by_a_worker(
    broker: redis.Redis,
) -> None:
    """Nobody else makes room: there must be no deadlock."""
    broker.config_set("maxmemory", broker.info("memory")["used_memory"] + 2**20)
    try:
        with pytest.raises(OperationalError):
            send_without_end()
        assert broker.llen("probe") > 20
        with running_together([spec_of("worker-effects", WATCHDOG_SECONDS="600")]) as [worker]:
            emptied = settles(lambda: broker.llen("probe") == 0)
            assert emptied, worker.last_lines()
            assert settles(lambda: readiness().checks["redis"] == "healthy")
            app.send_task("probe.append_entries", kwargs={"chunks": []}, queue="probe")
            assert settles(partial(is_over, worker)), worker.log.read_text()
            lost = said(worker, "redis_lost")
            assert 1 <= lost <= processes_of(worker), worker.log.read_text()
            assert worker.child.poll() is None
    finally:
        broker.config_set("maxmemory", 0)
        broker.delete("probe", "unacked", "unacked_index")
