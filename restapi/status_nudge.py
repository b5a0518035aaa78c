"""The nudge of a status log: after a commit, one message by Redis that there is more to read. Latency
only, so it is sent from a thread of its own, and one that fails is forgotten."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import redis

from outbox import redis_client
from outbox.publish.nudge import Nudger

__all__ = ["CHANNEL", "nudge_status_log", "nudging"]

CHANNEL = "status_log:nudge"  # of Redis' publish and subscribe; a message is the name of a log
_SPACING = 0.01  # seconds between two nudges of a process
_UNHEARD_SECONDS = 0.5  # pause after one that no web process has heard: none has an open socket
_LOST_SECONDS = 1.0


_logs: deque[str] = deque()  # whose nudges are to be sent


def _send() -> float:
    logs = {_logs.popleft() for _ in range(len(_logs))}
    # Once more is harmless: a second nudge finds nothing to read.
    server = redis_client.shared(answers_within=1.0, connects_within=0.5, again=1)
    try:
        heard = sum(int(server.publish(CHANNEL, log)) for log in logs)
        redis_client.ask_if_back(server)
    except (redis.RedisError, OSError) as error:
        redis_client.note_lost(error)
        return _LOST_SECONDS
    return _SPACING if heard else _UNHEARD_SECONDS


_nudger = Nudger("status-nudge", _send)


def nudge_status_log(log: str) -> None:
    """Say, after COMMIT, that this log has a new row. Returns at once and never raises for a Redis
    that is unavailable."""
    _logs.append(log)
    _nudger.want()


def nudging(log: str, on_commit: Callable[[], None] | None) -> Callable[[], None]:
    """The `on_commit` of a round trip that adds to this log: that of the rest of it, and the nudge."""

    def nudge() -> None:
        nudge_status_log(log)
        if on_commit is not None:
            on_commit()

    return nudge
