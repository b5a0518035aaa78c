"""The status hub, with real processes and sockets: one order for all, and a client that comes back misses nothing."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
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
from restapi.sockets import CloseCode

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
