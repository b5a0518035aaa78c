"""The keyring with a clock and a database of the test's own: what it asks, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest
import structlog
from django.db import OperationalError

from apikeys.queries import KeyState
from devtools.testing.patience import PATIENCE
from eventsite.web.gateway import keyring
from eventsite.web.gateway.keyring import Keyring, KeysUnread

FOREVER = float("inf")


def key(
    number: int, *, revision: int = 0, revoked: bool = False, expires: float = FOREVER
) -> KeyState:
    return KeyState(
        id=number,
        sha256=bytes([number]),
        prefix=f"ek_{number}",
        name=f"caller-{number}",
        scopes=frozenset({"orders:read"}),
        expires=expires,
        revoked=revoked,
        revision=revision or number,
    )


class Table:
    """The database: rows by id, and every question that was asked."""

    def __init__(self, *rows: KeyState) -> None:
        self.rows = {row.id: row for row in rows}
        self.asked: list[int] = []
        self.used: list[set[int]] = []
        self.away = False
        self.answers = threading.Event()
        self.answers.set()

    def read(self, revision: int, used: Collection[int]) -> list[KeyState]:
        self.asked.append(revision)
        self.answers.wait(PATIENCE)
        if self.away:
            raise OperationalError("away")
        self.used.append(set(used))
        return [row for row in self.rows.values() if row.revision > revision]

    def put(self, row: KeyState) -> None:
        self.rows[row.id] = row


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Scenario = Callable[[Keyring, Table, Clock], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario, *rows: KeyState, patience: float = 20.0, misses_a_second: float = 1e9
) -> Table:
    table, clock = Table(*rows), Clock()

    async def run() -> None:
        ring = Keyring(table.read, clock=clock, patience=patience, misses_a_second=misses_a_second)
        try:
            await asyncio.wait_for(scenario(ring, table, clock), 20)
        finally:
            table.answers.set()
            await ring.close()

    asyncio.run(run())
    return table


async def settle(ring: Keyring) -> None:
    while ring._reader is not None:
        await asyncio.sleep(0.001)


def test_a_known_key_costs_no_question() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert (await ring.find(b"\x01")) == key(1)
        await settle(ring)
        before = len(table.asked)
        for _ in range(100):
            assert await ring.find(b"\x01")
        assert len(table.asked) == before

    play(scenario, key(1))


def test_nothing_is_asked_while_nobody_calls() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert table.asked == []

    play(scenario, key(1))


def test_a_revoked_key_is_unknown_at_the_latest_after_the_bound() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01")
        await settle(ring)
        table.put(key(1, revision=2, revoked=True))
        clock.now += keyring.OLDEST + 0.01
        assert await ring.find(b"\x01") is None
        assert table.asked[-1] == 1  # only what changed

    play(scenario, key(1))


def test_in_a_busy_process_a_revocation_is_read_behind_the_requests() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01")
        await settle(ring)
        table.put(key(1, revision=2, revoked=True))
        clock.now += keyring.FRESH + 0.01
        assert await ring.find(b"\x01")  # does not wait
        await settle(ring)
        assert await ring.find(b"\x01") is None

    play(scenario, key(1))


def test_a_key_made_a_moment_ago_is_found() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01")
        table.put(key(2))
        assert await ring.find(b"\x02") == key(2)

    play(scenario, key(1))


def test_an_expired_key_is_unknown() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01") is None
        assert await ring.find(b"\x02")

    play(scenario, key(1, expires=1.0), key(2))


def test_a_flood_of_unknown_keys_shares_its_questions_and_leaves_nothing() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01")
        await settle(ring)
        before = len(table.asked)
        unknown = [ring.find(f"{number}".encode()) for number in range(2000)]
        assert set(await asyncio.gather(*unknown)) == {None}
        assert len(table.asked) - before <= 2
        assert len(ring._keys) == 1

    play(scenario, key(1))


def test_misses_are_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come one after the other: a read waits until the last one is old enough."""
    pauses: list[float] = []
    really = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        pauses.append(seconds)
        return await really(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        for number in range(5):
            assert await ring.find(b"%d" % number) is None

    play(scenario, misses_a_second=10)
    assert pauses == [pytest.approx(0.1)] * 4


def test_known_keys_work_while_the_database_is_away_and_others_are_not_judged() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01")
        await settle(ring)
        table.away = True
        clock.now += 3600
        assert await ring.find(b"\x01")
        with pytest.raises(KeysUnread):
            await ring.find(b"\x02")
        # Back, and revoked meanwhile: nobody has called for long, so the first who does waits.
        table.away = False
        table.put(key(1, revision=2, revoked=True))
        clock.now += 3600
        assert await ring.find(b"\x01") is None

    play(scenario, key(1))


def test_after_an_outage_all_keys_are_read() -> None:
    """It may be another database, whose revisions are older."""

    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x09")
        table.away = True
        clock.now += 10
        assert await ring.find(b"\x09")
        table.away = False
        table.rows = {2: key(2)}
        clock.now += 10
        assert await ring.find(b"\x09") is None
        assert await ring.find(b"\x02")

    play(scenario, key(9))


def test_a_database_away_from_the_start() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        table.away = True
        with pytest.raises(KeysUnread):
            await ring.find(b"\x01")

    play(scenario, key(1))


def test_a_database_that_hangs_holds_up_the_first_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        assert await ring.find(b"\x01")
        await settle(ring)
        table.answers.clear()
        clock.now += 10
        assert await ring.find(b"\x01")  # waited
        clock.now += 10
        waits: list[object] = []
        monkeypatch.setattr(asyncio, "shield", waits.append)
        for _ in range(10):
            assert await ring.find(b"\x01")
        assert waits == []

    play(scenario, key(1), patience=0.1)


def test_an_outage_is_one_line_in_the_log() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        table.away = True
        for _ in range(5):
            unknown = [ring.find(b"%d" % number) for number in range(100)]
            told = await asyncio.gather(*unknown, return_exceptions=True)
            assert {type(each) for each in told} == {KeysUnread}
            clock.now += 10
        assert len(table.asked) == 5

    with structlog.testing.capture_logs() as logs:
        play(scenario)
    assert [line["event"] for line in logs] == ["api_keys_unread"]


def test_who_hangs_up_leaves_the_others_their_answer() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        table.answers.clear()
        asking = [asyncio.ensure_future(ring.find(b"\x01")) for _ in range(4)]
        await asyncio.sleep(0.01)
        asking[0].cancel()
        asking[2].cancel()
        await asyncio.sleep(0.01)
        table.answers.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert told[1::2] == [key(1), key(1)]

    play(scenario, key(1))


def test_a_use_is_noted_once_in_a_while() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        for _ in range(10):
            await ring.find(b"\x01")
        await settle(ring)
        assert [used for used in table.used if used] == [{1}]
        clock.now += keyring.NOTED_EVERY + 1
        await ring.find(b"\x01")
        await settle(ring)
        assert [used for used in table.used if used] == [{1}, {1}]

    play(scenario, key(1))


def test_a_note_that_failed_is_tried_again() -> None:
    async def scenario(ring: Keyring, table: Table, clock: Clock) -> None:
        await ring.find(b"\x01")
        table.away = True
        await settle(ring)
        table.away = False
        clock.now += 10
        await ring.find(b"\x01")
        await settle(ring)
        assert {1} in table.used

    play(scenario, key(1))
