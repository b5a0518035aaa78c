"""Processes that run but get nowhere, and processes that get a SIGTERM (guarantees.md#r19)."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from django.conf import settings
from django.db import connection

from devtools.localstack.keeper import Keeper, KeeperThread
from devtools.localstack.probes import http_answers
from devtools.localstack.unit import Program, Unit
from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import (
    REPOSITORY,
    Process,
    child_environment,
    command_of,
    free_port,
    get_status,
    running_together,
    spec_of,
)
from devtools.testing.steady import steady_orders
from devtools.testing.weather import Fault, proxy_to
from eventsite.celery import app
from orders.models import Order
from outbox.drain.run import Drain
from outbox.models import InboxReceipt, OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")

WATCHED = 5.0  # seconds of standing still after which a watchdog ends its process here


def publish(times: int = 1) -> int:
    """Probe events on eight keys, `times` each, into Kafka; how many."""
    for _ in range(times):
        probe_services.draw([f"key-{number}" for number in range(8)])
    Drain().run()
    return times * 8


def applied() -> int:
    return InboxReceipt.objects.count()


def processes(*names: str, **environment: str) -> AbstractContextManager[list[Process]]:
    """Some of our processes, with impatient watchdogs; entered when all are up."""
    given = {"WATCHDOG_SECONDS": str(WATCHED), **environment}
    return running_together([spec_of(name, **given) for name in names])


@contextmanager
def process(name: str, **environment: str) -> Iterator[Process]:
    """One of them."""
    with processes(name, **environment) as [started]:
        yield started


def pool_of(pid: int) -> list[psutil.Process]:
    """The two pool processes of a worker; its health answers before they are there."""
    worker = psutil.Process(pid)
    assert settles(lambda: len(worker.children()) == 2)
    return worker.children()


def is_alive(process: psutil.Process) -> bool:
    """Whether it could still do something: one that was killed is there until somebody reaps it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Unit]:
    """A worker that SIGUSR2 makes stuck, with somebody there to start it again."""
    port = free_port()
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    command = [*command_of("worker-effects"), "--app", "devtools.testing.stuck_worker"]
    health = f"http://127.0.0.1:{port}/health"
    unit = Unit(
        Program(
            name="worker-effects",
            command=tuple(command),
            environment=child_environment(
                WATCHDOG_SECONDS=str(WATCHED),
                METRICS_PORT=str(port),
                PROMETHEUS_MULTIPROC_DIR=str(metrics),
            ),
            directory=REPOSITORY,
            log=tmp_path / "worker.log",
            port=port,
            probe=partial(http_answers, health),
            health=health,
        )
    )
    unit.start()
    keeper = KeeperThread(Keeper([unit]))
    try:
        unit.wait_ready()
        yield unit
    finally:
        keeper.stop()
        unit.stop()


def test_a_worker_that_stopped_consuming_is_replaced_and_work_goes_on(worker: Unit) -> None:
    with process("bridge"):
        published = publish()
        assert settles(lambda: applied() == published)
        stuck, pool = worker.pid, pool_of(worker.pid)
        os.kill(stuck, signal.SIGUSR2)
        published += publish()
        assert settles(lambda: get_status(worker.program.health) == 503)
        assert settles(lambda: applied() == published)
    assert worker.pid != stuck
    assert pool
    assert settles(lambda: not any(map(is_alive, pool)))
    assert probe_queries.verdict().ok
    said = worker.log.read_text()
    assert said.count('"no_progress"') == 1
    assert "stuck_worker.py" in said  # where every thread stood


def test_a_worker_without_work_is_left_alone(worker: Unit) -> None:
    """Nothing waits for it, however long it does nothing."""
    pid = worker.pid
    os.kill(pid, signal.SIGUSR2)
    time.sleep(WATCHED + 2)
    assert (worker.pid, get_status(worker.program.health)) == (pid, 200)


def test_a_bridge_that_hangs_says_so_and_ends(broker: redis.Redis) -> None:
    given = connection.settings_dict
    with proxy_to(given["HOST"], int(given["PORT"])) as proxy:
        url = child_environment()["DATABASE_URL"].replace(f":{given['PORT']}/", f":{proxy.port}/")
        spec = spec_of("bridge", DATABASE_URL=url, WATCHDOG_SECONDS=str(WATCHED))
        command = (sys.executable, "-m", "devtools.testing.patient_bridge")
        with running_together([replace(spec, command=command)]) as [bridge]:
            publish()
            assert settles(lambda: broker.llen("probe") > 0)
            proxy.set(Fault.SILENT)
            assert settles(lambda: get_status(bridge.health) == 503)
            assert bridge.child.wait(PATIENCE) == 1
            assert '"no_progress"' in bridge.log.read_text()


def test_who_was_stopped_and_goes_on_gets_time_to_catch_up() -> None:
    with processes("bridge", "worker-effects") as [bridge, worker]:
        os.killpg(worker.pid, signal.SIGSTOP)
        os.killpg(bridge.pid, signal.SIGSTOP)
        published = publish()
        time.sleep(WATCHED + 2)
        os.killpg(bridge.pid, signal.SIGCONT)
        os.killpg(worker.pid, signal.SIGCONT)
        assert settles(lambda: applied() == published)
        assert (bridge.child.poll(), worker.child.poll()) == (None, None)


def test_a_worker_that_loses_redis_with_a_message_in_hand_lives_on(broker: redis.Redis) -> None:
    """Kombu gives back what was not acknowledged, by a connection that it has just taken apart."""
    port = urlsplit(settings.REDIS_URL).port or 6379
    with ExitStack() as started:
        proxy = started.enter_context(proxy_to("127.0.0.1", port))
        url = settings.REDIS_URL.replace(f":{port}/", f":{proxy.port}/")
        changes = {"REDIS_URL": url, "WATCHDOG_SECONDS": "60"}
        worker = started.enter_context(process("worker-effects", **changes))
        pool = pool_of(worker.pid)
        for child in pool:
            child.suspend()  # a message is taken, but nobody begins with it
        app.send_task("probe.append_entries", kwargs={"chunks": []}, queue="probe")
        assert settles(lambda: broker.hlen("unacked") == 1)
        proxy.set(Fault.CLOSED)
        for kind in ("pubsub", "normal"):  # in this order it meets the fault
            broker.client_kill_filter(_type=kind)
            time.sleep(0.05)
        time.sleep(1)
        proxy.set(Fault.NONE)
        for child in pool:
            child.resume()
        app.send_task("probe.append_entries", kwargs={"chunks": []}, queue="probe")
        lives_on = settles(lambda: broker.llen("probe") == 0)
        assert lives_on, worker.last_lines()
        assert worker.child.poll() is None, worker.last_lines()


def test_every_process_stops_in_time_under_load() -> None:
    """Exit code 0 before somebody would kill them, and nothing is lost on the way."""
    names = ("web", "bridge", "worker-effects", "worker-outbox", "beat")
    with ExitStack() as stack:
        web, *others = stack.enter_context(processes(*names, WATCHDOG_SECONDS="15"))
        orders = stack.enter_context(steady_orders(urlsplit(web.health).port or 0))
        for each in (*others, web):
            assert each.stop() == 0, each.last_lines()
    promised = set(orders.accepted())
    assert len(promised) > 10
    assert promised == {str(order_id) for order_id in Order.objects.values_list("id", flat=True)}
    # a line reserves stock, a simple order is told twice
    assert OutboxEvent.objects.count() == 2 * len(promised)
