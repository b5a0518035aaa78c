"""Breakers that all workers share: their states in Redis, moved by compare-and-set on Redis's own
clock. While Redis is lost, what this process knew last holds; a Redis that was emptied knows no
breaker: closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec
import redis
import structlog

from outbox import redis_client
from outbox.breaker import machine
from outbox.breaker.machine import BreakerRule, BreakerState, CallOutcome, Permit

__all__ = ["BreakerLook", "BreakerStore"]

_KEPT_MS = 86_400_000
# Until a state stood still between reading and writing; each failure is another's success.
_TRIES = 50
_AWAY_SECONDS = 3.0  # that an unavailable Redis is not asked again: to wait for it delays others
_REPORT = 64  # outcomes of one step; the machine remembers as many ids

# Gives 1 when the value was what it was read as. Sent again after it was applied, it finds another
# value: then the state is read again, and says that the outcomes were counted.
_MOVE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BreakerState).decode

log = structlog.get_logger("outbox.breaker")


class BreakerLook(msgspec.Struct, frozen=True):
    """A breaker at a moment. `opens_in`: seconds until probes may go, while it is open."""

    phase: str
    epoch: int
    opens_in: float = 0.0


class BreakerStore:
    """The breakers of one kind; `prefix` of their keys. `opened` is called with the name when one opens.

    Belongs to one thread.
    """

    def __init__(
        self,
        prefix: str,
        rule: BreakerRule,
        *,
        server: redis.Redis | None = None,
        opened: Callable[[str], None] | None = None,
    ) -> None:
        self.rule = rule
        self._prefix = prefix
        # Once more is harmless, see _MOVE.
        self._server = server or redis_client.shared(
            answers_within=0.2, connects_within=0.2, again=1
        )
        self._move = self._server.register_script(_MOVE)
        self._opened = opened
        self._known: dict[str, BreakerState] = {}
        self._lost = False
        self._ahead = 0.0  # of Redis's clock before this process's monotonic one

    def look(self, names: Sequence[str]) -> dict[str, BreakerLook]:
        """How breakers are; one round trip, or what was known last."""
        try:
            states, now = self._read(names)
        except redis.RedisError as error:
            self._note_lost(error)
            states, now = (
                {name: self._known.get(name, BreakerState()) for name in names},
                self._now(),
            )
        return {name: self._seen(state, now) for name, state in states.items()}

    def ask(self, name: str, ids: Sequence[str]) -> list[Permit]:
        """Which calls may be made; see outbox/breaker/machine.py."""
        permits: list[Permit] = []

        def step(state: BreakerState, now: float) -> BreakerState:
            nonlocal permits
            state, permits = machine.ask(state, self.rule, now, ids)
            return state

        self._change(name, step)
        return permits

    def report(self, name: str, outcomes: Sequence[CallOutcome]) -> None:
        """What became of calls. The same outcome counts once."""
        for start in range(0, len(outcomes), _REPORT):
            self._report(name, outcomes[start : start + _REPORT])

    def _report(self, name: str, outcomes: Sequence[CallOutcome]) -> None:
        before, after = self._change(
            name, lambda state, now: machine.report(state, self.rule, now, outcomes)
        )
        if after.opened_at is not None and after.opened_at != before.opened_at:
            log.warning("breaker_opened", breaker=name, seconds=self.rule.open_seconds)
            if self._opened is not None:
                self._opened(name)
        elif before.opened_at is not None and after.opened_at is None:
            log.warning("breaker_closed", breaker=name)

    def give_up(self, name: str, ids: Sequence[str]) -> None:
        """Probes that were not made, or say nothing of the other side."""
        self._change(name, lambda state, _now: machine.give_up(state, ids))

    def reset(self, name: str, *, who: str, reason: str) -> bool:
        """Close it for an operator; False while Redis is unavailable. Logged with who did it and why."""
        self._change(name, lambda state, _now: machine.reset(state))
        stored = not self._lost
        log.warning("breaker_reset", breaker=name, who=who, reason=reason, stored=stored)
        return stored

    def _change(
        self, name: str, step: Callable[[BreakerState, float], BreakerState]
    ) -> tuple[BreakerState, BreakerState]:
        """Move a state; before and after."""
        try:
            for _ in range(_TRIES):
                states, now = self._read([name])
                before = states[name]
                after = step(before, now)
                if after == before or self._move(
                    keys=[self._prefix + name],
                    args=[self._raw[name], _encode(after), _KEPT_MS],
                ):
                    self._known[name] = after
                    return before, after
            raise redis.RedisError(
                f"Breaker {name} was changed by others during each of {_TRIES} tries; try again."
            )
        except redis.RedisError as error:
            self._note_lost(error)
            before = self._known.get(name, BreakerState())
            after = self._known[name] = step(before, self._now())
            return before, after

    def _note_lost(self, error: redis.RedisError) -> None:
        self._lost = True
        if not redis_client.lost_lately(_AWAY_SECONDS):
            redis_client.note_lost(error)

    def _read(self, names: Sequence[str]) -> tuple[dict[str, BreakerState], float]:
        if redis_client.lost_lately(_AWAY_SECONDS):
            raise redis.ConnectionError("Redis was lost a moment ago.")
        with self._server.pipeline(transaction=False) as commands:
            commands.time()
            for name in names:
                commands.get(self._prefix + name)
            (seconds, micros), *values = commands.execute()
        redis_client.note_back()
        self._lost = False
        now = seconds + micros / 1_000_000
        self._ahead = now - time.monotonic()
        self._raw: Mapping[str, bytes] = {
            name: cast(bytes, value) or b"" for name, value in zip(names, values, strict=True)
        }
        states = {name: _state(raw) for name, raw in self._raw.items()}
        self._known.update(states)
        return states, now

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    def _seen(self, state: BreakerState, now: float) -> BreakerLook:
        phase = machine.phase(state, self.rule, now)
        opens_in = 0.0
        if phase == machine.OPEN and state.opened_at is not None:
            opens_in = state.opened_at + self.rule.open_seconds - now
        return BreakerLook(phase, state.epoch, opens_in)


def _state(raw: bytes) -> BreakerState:
    """What cannot be read, of a version that wrote another shape, is a breaker that is closed."""
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        return BreakerState()
