"""Bad weather for the whole stack: a server goes and comes back while orders come in."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest
import redis

from devtools.localstack import LocalStack
from devtools.localstack.processes import ORDERS
from devtools.testing.account import Account, take_account
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.patience import PATIENCE
from devtools.testing.processes import running
from devtools.testing.steady import Reply, SteadyOrders, steady_orders
from devtools.testing.weather import read_only
from outbox import conf

# Far below what a client prints that retries without a pause: each handler of the bridge says so once a second.
# Refusals of web have one line each.
LINES_A_SECOND = 12
WATCHED = 15.0  # seconds of standing still after which a watchdog ends its process
LAST_LINES = 60  # of each log, in what a failure says
OUTAGE = 6.0  # seconds; longer than the five that a drain waits for Kafka


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """Servers and the five processes of an order's way, nobody there to start again what ends."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "devtools.probe.settings",
        "LOG_LEVEL": "WARNING",
    }
    with LocalStack.ephemeral(own_servers=True, plan=ORDERS, extra_env=environment) as started:
        yield started


@contextmanager
def load(stack: LocalStack) -> Iterator[SteadyOrders]:
    """Orders and the probe's numbers, until a second after the block."""
    probe = [sys.executable, "-m", "devtools.testing.probe_load"]
    with running(probe, stack.env) as drawing, steady_orders(int(stack.env["PORT"])) as orders:
        yield orders
        time.sleep(1)
        assert drawing.child.poll() is None, drawing.last_lines()


@contextmanager
def quiet_logs(stack: LocalStack) -> Iterator[None]:
    """Nobody fills a disk with the news that a server is unavailable."""
    sizes = {unit.name: unit.log.stat().st_size for unit in stack.units}
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    for unit in stack.units:
        with unit.log.open("rb") as log:
            log.seek(sizes[unit.name])
            of_requests = (b'"database_unavailable"', b'"turned_away"')
            lines = [line for line in log if not any(event in line for event in of_requests)]
        assert len(lines) <= LINES_A_SECOND * max(seconds, 1), (unit.name, lines[-3:])


def assert_recovered(stack: LocalStack, orders: SteadyOrders) -> Account:
    """All of it came back by itself: no promise broken, nothing twice, nothing out of order."""
    account = take_account(stack.env, within=PATIENCE)
    try:
        account.assert_whole()
    except AssertionError as error:
        for unit in stack.units:
            lines = unit.log.read_text().splitlines()[-LAST_LINES:]
            error.add_note("\n".join([f"-- {unit.name} said:", *lines]))
        raise
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        stored = {str(row[0]) for row in connection.execute("SELECT id FROM orders")}
    assert set(orders.accepted()) <= stored
    assert all(unit.is_alive() for unit in stack.units)
    return account


@contextmanager
def away(stack: LocalStack, server: str) -> Iterator[None]:
    """The server is killed, and started again at the end of the block."""
    unit = stack.server(server)
    with quiet_logs(stack):
        unit.kill()
        yield
        unit.start()
        unit.wait_ready()


def assert_told(refusals: Sequence[Reply], outcomes: set[str]) -> None:
    """Who was not served knows what became of the order, and when to come again."""
    assert refusals
    for reply in refusals:
        assert (reply.status, reply.body["outcome"]) in {(503, outcome) for outcome in outcomes}
        assert int(reply.retry_after) > 0


# Tansu forgets its log with its process.
@pytest.mark.parametrize("server", [pytest.param("kafka", marks=needs_apache_kafka), "redis"])
def test_orders_are_accepted_while_it_is_away(stack: LocalStack, server: str) -> None:
    with load(stack) as orders:
        before = len(orders.replies)
        with away(stack, server):
            time.sleep(OUTAGE)
            assert len(orders.accepted(before)) > 40
    assert orders.refused() == []
    assert_recovered(stack, orders)
    # what was finished meanwhile is not taken for overdue
    assert "Hard time limit" not in stack.process("worker-effects").log.read_text()


def test_kafka_frozen_for_longer_than_a_flush_takes(stack: LocalStack) -> None:
    kafka = stack.server("kafka")
    with load(stack) as orders:
        before = len(orders.replies)
        with quiet_logs(stack):
            kafka.pause()
            time.sleep(OUTAGE)
            kafka.resume()
        assert len(orders.accepted(before)) > 40
    assert orders.refused() == []
    assert_recovered(stack, orders)


def test_redis_forgets_everything_under_load(stack: LocalStack) -> None:
    with load(stack) as orders, redis.Redis.from_url(stack.env["REDIS_URL"]) as client:
        for _ in range(5):
            client.flushall()
            time.sleep(0.3)
    assert orders.refused() == []
    assert_recovered(stack, orders)


def test_the_database_is_away(stack: LocalStack) -> None:
    with load(stack) as orders:
        before = len(orders.replies)
        with away(stack, "postgres"):
            time.sleep(4)
        back = len(orders.replies)
        time.sleep(1)
    assert_told(orders.refused(before), {"not_stored", "unknown"})
    assert orders.accepted(back)
    account = assert_recovered(stack, orders)
    assert account.orders >= len(orders.accepted())


def test_the_database_is_frozen(stack: LocalStack) -> None:
    """Stopped in the middle of its work, for longer than a watchdog has patience with who stands
    still: every process waits it out."""
    processes = {unit.name: unit.pid for unit in stack.units}
    with load(stack) as orders:
        before = len(orders.replies)
        with quiet_logs(stack):
            stack.server("postgres").pause()
            time.sleep(WATCHED + 7)
            stack.server("postgres").resume()
        back = len(orders.replies)
        time.sleep(3)
    assert_told(orders.refused(before), {"not_stored", "unknown"})
    assert orders.accepted(back)
    assert_recovered(stack, orders)
    assert {unit.name: unit.pid for unit in stack.units} == processes
    for unit in stack.units:
        assert "Hard time limit" not in unit.log.read_text(), unit.name


def test_the_database_takes_no_writes(stack: LocalStack) -> None:
    """As a standby in the middle of a failover, for longer than a chunk's deadline."""
    with load(stack) as orders:
        before = len(orders.replies)
        with quiet_logs(stack), read_only(stack.env["DATABASE_URL"]):
            time.sleep(conf.BRIDGE.deadline + 3)
        back = len(orders.replies)
        time.sleep(1)
    assert_told(orders.refused(before), {"not_stored"})
    assert orders.accepted(back)
    assert_recovered(stack, orders)
