"""Turns bound how many delivery tasks of a priority claim at a time. They only save work: rows are protected by
their locks. A turn is a key in Redis that expires when its holder dies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

import redis
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

from outbox import redis_client

__all__ = ["Turn", "nudge", "nudge_all", "queue_of", "task_of"]

# Once more is harmless: each command has the same effect twice as once.
_redis = partial(redis_client.shared, answers_within=0.2, connects_within=0.2, again=1)
TURN_MS = 2_000
NUDGE_MS = 1_000
AWAY_SECONDS = 3.0  # that a lost Redis is not asked again

# KEYS: a turn. ARGV: the holder's token, its milliseconds. Held for longer only where it is held.
_KEEP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_LEAVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
# KEYS: the turns of a priority, and last whether a task was asked for. ARGV: its milliseconds.
_ASK = """
for i = 1, #KEYS - 1 do
    if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
return redis.call('SET', KEYS[#KEYS], 1, 'NX', 'PX', ARGV[1]) and 1 or 0
"""


def task_of(priority: str) -> str:
    """Name of the task that delivers a priority."""
    return f"notifications.deliver_{priority}"


def queue_of(priority: str) -> str:
    return f"deliver-{priority}"


class Turn:
    """One of the turns of a priority. While Redis is unavailable, a holder keeps its turn."""

    def __init__(self, priority: str) -> None:
        self._priority = priority
        self._token = uuid4().hex
        self._key = ""
        self._keep_at = 0.0

    def take(self) -> bool:
        """Whether there was one. Raises redis.RedisError."""
        _redis().delete(_nudge_key(self._priority))
        redis_client.ask_if_back(_redis())
        for number in range(settings.NOTIFICATION_SENDERS):
            key = _turn_key(self._priority, number)
            # Sent again after a lost answer it finds its own token.
            if (
                _redis().set(key, self._token, nx=True, px=TURN_MS)
                or _redis().get(key) == self._token.encode()
            ):
                self._key = key
                return True
        return False

    def keep(self) -> None:
        """For a while from now; may be called often."""
        if self._key and time.monotonic() >= self._keep_at:
            self._keep_at = time.monotonic() + TURN_MS / 4000
            self._run(_KEEP, TURN_MS)

    def leave(self) -> None:
        """Give the turn back, before the last look: what becomes ready after that look asks for another task."""
        if self._key:
            self._run(_LEAVE)
            self._key = ""

    def _run(self, script: str, *arguments: int) -> None:
        if redis_client.lost_lately(AWAY_SECONDS):
            return
        try:
            _redis().eval(script, 1, self._key, self._token, *arguments)
        except redis.RedisError as error:
            redis_client.note_lost(error)


def nudge(priority: str) -> None:
    """Something is ready: ask for a delivery now, unless somebody is at it or has been asked. Whatever becomes
    of this, keep_times asks again within a second, and beat every five."""
    turns = [_turn_key(priority, number) for number in range(settings.NOTIFICATION_SENDERS)]
    keys = [*turns, _nudge_key(priority)]
    if redis_client.lost_lately(AWAY_SECONDS):
        return
    try:
        # Sent again after a lost answer it says that somebody has asked: the next one does.
        if _redis().eval(_ASK, len(keys), *keys, NUDGE_MS):
            current_app.send_task(task_of(priority), queue=queue_of(priority), retry=False)
    except (redis.RedisError, OperationalError, OSError) as error:
        redis_client.note_lost(error)


def nudge_all(priorities: Sequence[str]) -> None:
    """The same for several priorities, also if Redis was lost a moment ago: the caller's own task came through it since."""
    try:
        redis_client.ask_if_back(_redis())
    except redis.RedisError as error:
        redis_client.note_lost(error)
        return
    for priority in priorities:
        nudge(priority)


def _turn_key(priority: str, number: int) -> str:
    return f"notifications:{{{priority}}}:turn:{number}"


def _nudge_key(priority: str) -> str:
    return f"notifications:{{{priority}}}:nudge"
