"""Who sends an event id: two states in Redis, `claimed <owner>` and `done <digest>`.

One script a key, pipelined, safe to repeat. The digest distinguishes a repetition from an id that was used
for something else. Where Redis does not answer the relay continues without it, and counts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import redis
import structlog
from redis.exceptions import NoScriptError

from outbox.redis_client import client

__all__ = [
    "ClaimOutcome",
    "ClaimSeen",
    "EventClaims",
    "OwnerLease",
    "claim_of",
    "connected",
]

_REMEMBERED = 50_000  # events that could not be marked, the last ones

log = structlog.get_logger("outbox.relay")

# KEYS[1] the event, ARGV: owner, digest, milliseconds, prefix of the owners' leases.
# The lease's key is made here of what the event's key says, so this is for one Redis, not for a
# Redis Cluster.
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, 1, 5) == 'done ' then
    if string.sub(held, 6) == ARGV[2] then return 2 end
    return 3
  end
  local owner = string.sub(held, 9)
  if owner ~= ARGV[1] and redis.call('EXISTS', ARGV[4] .. owner) == 1 then return 0 end
end
redis.call('SET', KEYS[1], 'claimed ' .. ARGV[1], 'PX', ARGV[3])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == 'claimed ' .. ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_LEASES = "relay:owner:"
_PROBE = "relay:probe"


class ClaimOutcome(Enum):
    """What a claim says: somebody else sends it, send it, it was sent, its id was used before."""

    BUSY = 0
    MINE = 1
    DUPLICATE = 2
    REUSED = 3


_OUTCOMES = {outcome.value: outcome for outcome in ClaimOutcome}


def key_of(event_id: str) -> str:
    return f"event:{event_id}"


class EventClaims:
    """The claims of one owner. Every call takes at most the wait of `server`, and answers None, or
    nothing, when Redis does not."""

    def __init__(self, server: redis.Redis, owner: str, *, ttl: float, pause: float) -> None:
        self._server = server
        self._owner = owner
        self._ttl = round(ttl * 1000)
        self._pause = pause
        self._away_until = 0.0
        self._shas: dict[str, str] = {}
        self._unmarked: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)

    @property
    def is_away(self) -> bool:
        """Whether Redis is left alone after it did not answer."""
        return time.monotonic() < self._away_until

    @property
    def is_lost(self) -> bool:
        """Whether Redis did not take what it was last given."""
        return self._away_until > 0.0

    def look(self) -> None:
        """Once a second: whether Redis is back. What could not be marked is marked then, though no
        message comes: a repetition may go to another relay."""
        if self.is_lost and not self.mark_done(()):
            return
        if self.is_lost:  # there was nothing to mark
            self._send([("SET", _PROBE, 1, "PX", 1000)])

    def claim(self, events: Sequence[tuple[str, str]]) -> list[ClaimOutcome] | None:
        """Claim events, given as (id, digest); None while Redis is unavailable."""
        if self._unmarked and not self.mark_done(()):
            return None  # one of these may be a repetition of what is not marked yet
        arguments = (self._ttl, _LEASES)
        found = self._run(
            _CLAIM, [(key_of(id_), (self._owner, digest, *arguments)) for id_, digest in events]
        )
        return None if found is None else [_OUTCOMES[int(each)] for each in found]

    def release(self, event_ids: Iterable[str]) -> bool:
        """Forget claims that are still mine: a replay, or another relay, may have them."""
        found = self._run(_RELEASE, [(key_of(id_), (self._owner,)) for id_ in event_ids])
        return found is not None

    def mark_done(self, events: Sequence[tuple[str, str]]) -> bool:
        """Kafka has these. What cannot be written now is written when Redis is back."""
        self._unmarked.extend(events)
        if self.is_away:
            return False
        if not (todo := list(self._unmarked)):
            return True
        commands = [("SET", key_of(id_), f"done {digest}", "PX", self._ttl) for id_, digest in todo]
        if self._send(commands) is None:
            return False
        self._unmarked.clear()
        return True

    def close(self) -> None:
        self._server.close()

    def _run(self, script: str, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any] | None:
        if self.is_away:
            return None
        if not calls:
            return []
        try:
            sha = self._shas.get(script) or self._load(script)
            commands = [("EVALSHA", sha, 1, key, *arguments) for key, arguments in calls]
            try:
                return self._pipelined(commands)
            except NoScriptError:  # a Redis that was emptied, or another one by now
                self._load(script)
                return self._pipelined(commands)
        except (redis.RedisError, OSError) as error:
            self._lost(error)
            return None

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any] | None:
        try:
            return self._pipelined(commands)
        except (redis.RedisError, OSError) as error:
            self._lost(error)
            return None

    def _load(self, script: str) -> str:
        self._shas[script] = sha = str(self._server.script_load(script))
        return sha

    def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All commands in one go, over a connection of the pool; raises the first error. redis-py's
        pipeline does the same for twice the time of this process."""
        pool: Any = self._server.connection_pool
        link = pool.get_connection()
        try:
            link.send_packed_command(link.pack_commands(commands))
            answers = [self._answer(link) for _ in commands]
        except BaseException:
            link.disconnect()
            raise
        finally:
            pool.release(link)
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
        if self._away_until:
            self._away_until = 0.0
            log.warning("dedupe_back")
        return answers

    def _answer(self, link: Any) -> Any:
        try:
            return link.read_response(disable_decoding=True)
        except redis.ResponseError as error:
            return error

    def _lost(self, error: Exception) -> None:
        if not self._away_until:
            log.warning("dedupe_lost", error=str(error) or type(error).__name__)
        self._away_until = time.monotonic() + self._pause


class OwnerLease:
    """The key that says that an owner lives: renewed by a thread of its own, whatever the loop waits
    for, until the process ends."""

    def __init__(self, server: redis.Redis, owner: str, *, seconds: float, every: float) -> None:
        self._server = server
        self._key = f"{_LEASES}{owner}"
        self._milliseconds = round(seconds * 1000)
        self._every = every
        self._ended = threading.Event()
        self.renewed_at = 0.0  # by the monotonic clock
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def start(self) -> None:
        """The lease is written before the first claim, if Redis answers."""
        self._write()
        self._thread.start()

    def end(self) -> None:
        """Nothing of this owner is under way any more: what it claimed is free."""
        self._ended.set()
        self._thread.join(1.0)
        try:
            self._server.delete(self._key)
        except (redis.RedisError, OSError):
            log.info("lease_left", seconds=self._milliseconds / 1000)
        self._server.close()

    def _renew(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _write(self) -> None:
        try:
            begun = time.monotonic()
            self._server.set(self._key, 1, px=self._milliseconds)
            self.renewed_at = begun
        except (redis.RedisError, OSError) as error:
            log.debug("lease_not_renewed", error=str(error))


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """A claim as somebody else sees it. `is_done`: Kafka has the event; `is_held`: its owner lives; `age`:
    seconds for which it has been so."""

    is_done: bool
    is_held: bool
    age: float


def claim_of(server: redis.Redis, event_id: str, *, ttl: float) -> ClaimSeen | None:
    """The claim of an event; None if there is none, or no more. Raises redis.RedisError."""
    key = key_of(event_id)
    held = cast(bytes | None, server.get(key))
    if held is None:
        return None
    state, _, owner = held.decode().partition(" ")
    is_done = state == "done"
    left = server.pttl(key) / 1000
    return ClaimSeen(
        is_done=is_done,
        is_held=not is_done and bool(server.exists(f"{_LEASES}{owner}")),
        age=max(0.0, ttl - left),
    )


def connected(url: str, *, wait: float) -> redis.Redis:
    """A client of the Redis of the claims, which waits so many seconds for an answer."""
    return client(answers_within=wait, connects_within=wait, url=url)
