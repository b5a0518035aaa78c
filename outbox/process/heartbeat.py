"""What each process says of itself, every few seconds, in Redis: the table of processes.

Redis is asked when PostgreSQL is unavailable, a row that nobody renews goes by itself, and its age is
what Redis counts. Nothing depends on it."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec
import redis
from django.conf import settings

from outbox import conf, redis_client
from outbox.process.rises import Rises

__all__ = [
    "BEAT_SECONDS",
    "GONE_SECONDS",
    "Heartbeat",
    "Said",
    "SeenProcess",
    "kinds_seen",
    "memory_of",
    "processes_here",
    "processes_seen",
]

BEAT_SECONDS = 5.0
MEMORY_SECONDS = 60.0  # between two looks at it, which cost some milliseconds
GONE_SECONDS = 600.0  # after its last heartbeat a process is forgotten
_PREFIX = "outbox:process:"
_INDEX = "outbox:processes"
_KINDS = "outbox:process-kinds"  # of all that ever ran here
_END_TRIES = 3  # else it is missed for as long as a heartbeat is kept
_ANSWERS_WITHIN = 0.5


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The words of one heartbeat.

    kind     web, worker, beat, bridge or relay; name: SERVICE_NAME
    up       seconds since it began; memory: bytes, its own processes together
    disk     bytes free and bytes in all, of where it works
    figures  series -> value, of what nobody else knows
    risen    figure of an alarm -> by how much it has risen within the alarm's time, in the process and its children
    build    what it was made of, as BUILD says it; empty where nobody does
    passes_canaries  its code lets them pass; older code would park each as of an unknown type
    """

    kind: str
    name: str
    host: str
    pid: int
    release: str
    up: float
    memory: int
    disk: tuple[int, int]
    queues: tuple[str, ...] = ()
    figures: dict[str, float] = {}
    risen: dict[str, float] = {}
    build: str = ""
    passes_canaries: bool = False


class SeenProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process as Redis knows it; `age`: seconds since its last heartbeat."""

    said: Said
    age: float


class Heartbeat:
    """Of this process. Make it after any fork: a thread does not live on in a child."""

    def __init__(
        self,
        kind: str,
        *,
        figures: Callable[[], Mapping[str, float]] = dict,
        queues: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._kind = kind
        self._figures = figures
        self._queues = queues
        self._began = time.monotonic()
        self._pid = os.getpid()
        self._id = f"{socket.gethostname()}:{self._pid}:{os.urandom(4).hex()}"
        self._ended = threading.Event()
        self._speaks = threading.Lock()  # a heartbeat under way would be written behind the end
        self._rises = Rises(settings.WIRING.alarms, self._pids())
        # Not at the start, when children are still to come.
        self._next_memory, self._bytes = self._began + 2 * BEAT_SECONDS, 0
        # Once more is harmless: the same is said.
        self._server = redis_client.client(
            answers_within=_ANSWERS_WITHIN, connects_within=_ANSWERS_WITHIN, again=1
        )

    def start(self) -> None:
        """Begin, on a daemon thread; the end of the process ends it."""
        _here.append(self)
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()
        atexit.register(self.end)

    def end(self) -> None:
        """Say that the process ends in order, so that nobody waits for it."""
        if os.getpid() != self._pid or self._ended.is_set():
            return
        self._ended.set()
        with self._speaks:
            for _ in range(_END_TRIES):
                with suppress(redis.RedisError, OSError):
                    self._server.delete(_PREFIX + self._id)
                    return

    def beat(self) -> None:
        """One heartbeat, and none behind the end. Raises redis.RedisError."""
        with self._speaks, self._server.pipeline(transaction=False) as commands:
            if self._ended.is_set():
                return
            commands.set(
                _PREFIX + self._id, msgspec.json.encode(self._said()), px=int(GONE_SECONDS * 1000)
            )
            commands.sadd(_INDEX, self._id)
            commands.sadd(_KINDS, self._kind)
            commands.execute()

    def now(self) -> SeenProcess | None:
        """What it would say now; None once it has ended, and in a child of its process."""
        if os.getpid() != self._pid or self._ended.is_set():
            return None
        return SeenProcess(said=self._said(), age=0.0)

    def _run(self) -> None:
        with suppress(redis.RedisError, OSError):
            _forget_the_gone(self._server)
        while True:
            with suppress(redis.RedisError, OSError):
                self.beat()
            if self._ended.wait(BEAT_SECONDS):
                return

    def _said(self) -> Said:
        usage = shutil.disk_usage(settings.BASE_DIR)
        return Said(
            kind=self._kind,
            name=settings.SERVICE_NAME,
            host=socket.gethostname(),
            pid=self._pid,
            release=conf.release(),
            up=time.monotonic() - self._began,
            memory=self._memory(),
            disk=(usage.free, usage.total),
            queues=tuple(self._queues()),
            figures=dict(self._figures()),
            risen=dict(self._rises.within(self._pids())),
            build=conf.build(),
            passes_canaries=True,
        )

    def _pids(self) -> list[int]:
        return [self._pid, *_children(self._pid)]

    def _memory(self) -> int:
        now = time.monotonic()
        if now >= self._next_memory:
            self._next_memory = now + MEMORY_SECONDS
            self._bytes = memory_of(self._pid)
        return self._bytes


_here: list[Heartbeat] = []  # those that this process has begun


def processes_here() -> list[SeenProcess]:
    """What this process says of itself; no server is asked. Empty if it has no heartbeat."""
    return [said for said in (heartbeat.now() for heartbeat in _here) if said is not None]


def processes_seen(server: redis.Redis) -> list[SeenProcess]:
    """Every process that has said something in the last ten minutes and has not ended in order, by kind
    and name. Raises redis.RedisError."""
    ids = _ids(server)
    with server.pipeline(transaction=False) as commands:
        for each in ids:
            commands.get(_PREFIX + each)
            commands.pttl(_PREFIX + each)
        answers = commands.execute()
    found = []
    for text, left in zip(answers[::2], answers[1::2], strict=True):
        if text is None:
            continue
        # What another release writes may have another shape.
        with suppress(msgspec.DecodeError, msgspec.ValidationError):
            said = msgspec.json.decode(text, type=Said)
            found.append(SeenProcess(said=said, age=max(0.0, GONE_SECONDS - left / 1000)))
    return sorted(found, key=lambda seen: (seen.said.kind, seen.said.name, seen.said.host))


def _ids(server: redis.Redis) -> list[str]:
    return sorted(cast(bytes, each).decode() for each in server.smembers(_INDEX))


def kinds_seen(server: redis.Redis) -> frozenset[str]:
    """Kinds of process that have ever run here. Raises redis.RedisError."""
    return frozenset(cast(bytes, kind).decode() for kind in server.smembers(_KINDS))


def memory_of(pid: int) -> int:
    """Bytes of a process and its children; what several share counts once (PSS)."""
    return 1024 * sum(map(_proportional, [pid, *_children(pid)]))


def _proportional(pid: int) -> int:
    """KiB; 0 for one that has ended, and where this is no Linux."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _forget_the_gone(server: redis.Redis) -> None:
    """The index keeps no names of what has gone."""
    ids = _ids(server)
    with server.pipeline(transaction=False) as commands:
        for each in ids:
            commands.exists(_PREFIX + each)
        gone = [
            each for each, is_there in zip(ids, commands.execute(), strict=True) if not is_there
        ]
    if gone:
        server.srem(_INDEX, *gone)
