"""The breaker: its state machine against a model of a few lines, and its store in a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devtools.testing.weather import Fault, proxy_to
from outbox import redis_client
from outbox.breaker import machine
from outbox.breaker.machine import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    BreakerRule,
    BreakerState,
    CallOutcome,
    Permit,
)
from outbox.breaker.store import BreakerStore

RULE = BreakerRule(open_seconds=30.0, place_seconds=10.0)


class AgainstAModel(RuleBasedStateMachine):
    """The model keeps all outcomes since it closed last, and looks at the whole of them each time."""

    @initialize()
    def begin(self) -> None:
        self.state, self.now = BreakerState(), 1000.0
        self.history: list[bool] = []
        self.opened_at: float | None = None
        self.under_way: list[Permit] = []
        self.old: list[Permit] = []
        self.places: dict[str, float] = {}
        self.passed = 0
        self.number = 0

    def _phase(self) -> str:
        if self.opened_at is None:
            return CLOSED
        return OPEN if self.now < self.opened_at + RULE.open_seconds else HALF_OPEN

    def _change(self, opened_at: float | None) -> None:
        self.opened_at, self.history, self.places, self.passed = opened_at, [], {}, 0
        self.old, self.under_way = self.old + self.under_way, []

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 11.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 6))
    def ask(self, count: int) -> None:
        ids = [f"call-{self.number + number}" for number in range(count)]
        self.number += count
        self.state, permits = machine.ask(self.state, RULE, self.now, ids)
        phase = self._phase()
        self.places = {id_: until for id_, until in self.places.items() if until > self.now}
        expected = {
            CLOSED: count,
            OPEN: 0,
            HALF_OPEN: min(count, RULE.probes - self.passed - len(self.places)),
        }[phase]
        assert [permit.id for permit in permits] == ids[:expected]
        assert all(permit.probe == (phase == HALF_OPEN) for permit in permits)
        if phase == HALF_OPEN:
            self.places |= {p.id: self.now + RULE.place_seconds for p in permits}
        self.under_way += permits

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), success=st.booleans(), again=st.booleans())
    def answer(self, data: st.DataObject, success: bool, again: bool) -> None:
        place = data.draw(st.integers(0, len(self.under_way) - 1))
        permit = self.under_way.pop(place)
        phase = self._phase()
        held = self.places.get(permit.id, 0.0) > self.now
        self._report(permit, success)
        if phase == CLOSED:
            self.history.append(success)
            run = self.history[-RULE.in_a_row :]
            window = self.history[-RULE.window :]
            if len(run) == RULE.in_a_row and not any(run) and 2 * sum(window) <= len(window):
                self._change(self.now)
        elif held:
            del self.places[permit.id]
            if not success:
                self._change(self.now)
            elif self.passed + 1 == RULE.probes:
                self._change(None)
            else:
                self.passed += 1
        if again:
            before = self.state
            self._report(permit, not success)
            assert self.state == before

    @precondition(lambda self: self.old)
    @rule(data=st.data(), success=st.booleans())
    def answer_late(self, data: st.DataObject, success: bool) -> None:
        """To a call from before the last change: nothing comes of it."""
        before = self.state
        self._report(data.draw(st.sampled_from(self.old)), success)
        assert self.state == before

    @rule()
    def reset(self) -> None:
        self.state = machine.reset(self.state)
        self._change(None)

    def _report(self, permit: Permit, success: bool) -> None:
        outcome = CallOutcome(permit.id, permit.epoch, success)
        self.state = machine.report(self.state, RULE, self.now, [outcome])

    @invariant()
    def the_phases_agree(self) -> None:
        assert machine.phase(self.state, RULE, self.now) == self._phase()


TestAgainstAModel = AgainstAModel.TestCase


def fail(
    state: BreakerState, count: int, *, rule: BreakerRule = RULE, now: float = 0.0
) -> BreakerState:
    for number in range(count):
        outcome = CallOutcome(f"{state.epoch}-{number}-{now}", state.epoch, False)
        state = machine.report(state, rule, now, [outcome])
    return state


class TestWhatOpensIt:
    def test_five_in_a_row_are_not_enough_behind_many_successes(self) -> None:
        taken = [CallOutcome(f"ok-{number}", 0, True) for number in range(20)]
        state = machine.report(BreakerState(), RULE, 0.0, taken)

        assert machine.phase(fail(state, 9), RULE, 0.0) == CLOSED
        assert machine.phase(fail(state, 10), RULE, 0.0) == OPEN

    def test_half_is_not_enough_without_five_in_a_row(self) -> None:
        state = BreakerState()
        for number in range(100):
            outcome = CallOutcome(str(number), 0, number % 5 == 4)
            state = machine.report(state, RULE, 0.0, [outcome])

        assert machine.phase(state, RULE, 0.0) == CLOSED

    def test_a_share_alone_can_be_the_rule(self) -> None:
        """As around Kafka: five looks, of which 60 % failed."""
        by_share = BreakerRule(in_a_row=0, at_least=5, share=0.6, window=5)
        outcomes = [CallOutcome(str(n), 0, ok) for n, ok in enumerate((True, False, True, False))]
        state = machine.report(BreakerState(), by_share, 0.0, outcomes)
        assert machine.phase(state, by_share, 0.0) == CLOSED

        state = machine.report(state, by_share, 0.0, [CallOutcome("last", 0, False)])
        assert machine.phase(state, by_share, 0.0) == OPEN


class TestProbes:
    def test_a_place_whose_holder_died_is_given_to_another(self) -> None:
        opened = fail(BreakerState(), 5)
        state, permits = machine.ask(opened, RULE, 31.0, ["a", "b", "c", "d"])
        assert [permit.id for permit in permits] == ["a", "b", "c"]

        state, none = machine.ask(state, RULE, 40.0, ["e"])
        assert not none
        state, after = machine.ask(state, RULE, 41.0, ["e"])
        assert [permit.id for permit in after] == ["e"]

    def test_one_that_says_nothing_frees_its_place(self) -> None:
        state, _ = machine.ask(fail(BreakerState(), 5), RULE, 31.0, ["a", "b", "c"])
        state = machine.give_up(state, ["b"])

        _, permits = machine.ask(state, RULE, 31.0, ["d", "e"])
        assert [permit.id for permit in permits] == ["d"]


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete("test-breaker:one")
        redis_client.note_back()
        yield client
        client.delete("test-breaker:one")
        redis_client.note_back()


def store_on(server: redis.Redis) -> BreakerStore:
    return BreakerStore("test-breaker:", RULE, server=server)


def failures(count: int, prefix: str = "call", epoch: int = 0) -> list[CallOutcome]:
    return [CallOutcome(f"{prefix}-{number}", epoch, False) for number in range(count)]


class TestTheStore:
    def test_what_one_worker_reports_holds_for_all(self, server: redis.Redis) -> None:
        store_on(server).report("one", failures(5))

        other = store_on(server)
        look = other.look(["one"])["one"]
        assert look.phase == OPEN
        assert 29 < look.opens_in <= 30
        assert other.ask("one", ["a"]) == []

    def test_two_that_report_at_once_lose_none(self, server: redis.Redis) -> None:
        """Each moves the state that it has read, or reads it again."""

        def report(worker: int) -> None:
            store = store_on(redis.Redis.from_url(settings.REDIS_URL))
            for number in range(15):
                store.report("one", [CallOutcome(f"{worker}-{number}", 0, True)])

        workers = [threading.Thread(target=report, args=(worker,)) for worker in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        state = store_on(server)._read(["one"])[0]["one"]
        assert len(state.seen) == 60

    def test_a_report_that_redis_py_sends_again_counts_once(self, server: redis.Redis) -> None:
        """The answer to the move is lost, and the client repeats it on a new connection."""
        address = urlsplit(settings.REDIS_URL)
        with proxy_to(address.hostname or "", address.port or 6379) as proxy:
            client = redis.Redis(port=proxy.port)
            store = store_on(client)
            store.report("one", failures(3))
            assert store_on(server)._read(["one"])[0]["one"].outcomes == (False,) * 3

            store.report("one", failures(3))
            assert store_on(server)._read(["one"])[0]["one"].outcomes == (False,) * 3

    def test_without_redis_what_was_known_last_holds(self, server: redis.Redis) -> None:
        address = urlsplit(settings.REDIS_URL)
        with proxy_to(address.hostname or "", address.port or 6379) as proxy:
            store = store_on(redis.Redis(port=proxy.port))
            store.report("one", failures(5))
            proxy.set(Fault.AWAY)

            assert store.look(["one"])["one"].phase == OPEN
            assert not store.reset("one", who="me", reason="test")
            assert store.look(["one"])["one"].phase == CLOSED
        redis_client.note_back()
        assert store_on(server).look(["one"])["one"].phase == OPEN

    def test_an_emptied_redis_knows_none(self, server: redis.Redis) -> None:
        store = store_on(server)
        store.report("one", failures(5))
        server.delete("test-breaker:one")

        assert store.look(["one"])["one"].phase == CLOSED

    def test_it_is_closed_by_hand(self, server: redis.Redis) -> None:
        store = store_on(server)
        store.report("one", failures(5))

        assert store.reset("one", who="me", reason="they said it works")
        assert store.look(["one"])["one"].phase == CLOSED
        store.report("one", failures(5, "late"))
        assert store.look(["one"])["one"].phase == CLOSED  # calls from before
