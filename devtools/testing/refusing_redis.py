"""Redis as it answers commands with errors: full, a replica, without its password, busy."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import redis

__all__ = ["REFUSALS", "refusing"]

_FOREVER = "while true do end"


@contextmanager
def _full(admin: redis.Redis, url: str) -> Iterator[None]:
    """Answers OOM to whatever could need memory."""
    before = admin.config_get("maxmemory")["maxmemory"] or "0"
    admin.config_set("maxmemory", 1)
    try:
        yield
    finally:
        admin.config_set("maxmemory", before)


@contextmanager
def _replica(admin: redis.Redis, url: str) -> Iterator[None]:
    """Answers READONLY to writes, as a master does that another has replaced."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # held, so that no other server is taken for the master
        admin.replicaof("127.0.0.1", nobody.getsockname()[1])
        try:
            yield
        finally:
            admin.replicaof("NO", "ONE")


@contextmanager
def _stale_replica(admin: redis.Redis, url: str) -> Iterator[None]:
    """Answers MASTERDOWN to reads, too."""
    admin.config_set("replica-serve-stale-data", "no")
    try:
        with _replica(admin, url):
            yield
    finally:
        admin.config_set("replica-serve-stale-data", "yes")


@contextmanager
def _locked(admin: redis.Redis, url: str) -> Iterator[None]:
    """Answers NOAUTH to whoever connects, and has ended all connections."""
    admin.config_set("requirepass", "rotated")
    admin.client_kill_filter(skipme=True, _type="normal")
    admin.client_kill_filter(skipme=True, _type="pubsub")
    try:
        yield
    finally:
        admin.config_set("requirepass", "")


@contextmanager
def _busy(admin: redis.Redis, url: str) -> Iterator[None]:
    """Answers BUSY to everybody while somebody's script runs."""
    before = admin.config_get("lua-time-limit")["lua-time-limit"] or "5000"
    admin.config_set("lua-time-limit", 50)
    killed = suppress(redis.ResponseError)

    def run() -> None:
        with redis.Redis.from_url(url, socket_timeout=600) as client, killed:
            client.eval(_FOREVER, 0)

    script = threading.Thread(target=run, daemon=True)
    script.start()
    with suppress(redis.ResponseError):  # BUSY, once the script has begun
        while admin.ping():
            time.sleep(0.01)
    try:
        yield
    finally:
        admin.script_kill()
        script.join()
        admin.config_set("lua-time-limit", before)


REFUSALS: Final[dict[str, Callable[[redis.Redis, str], AbstractContextManager[None]]]] = {
    "full": _full,
    "replica": _replica,
    "stale replica": _stale_replica,
    "locked": _locked,
    "busy": _busy,
}


@contextmanager
def refusing(kind: str, url: str) -> Iterator[None]:
    """The Redis at `url` refuses until the end of the block; `kind` is one of REFUSALS."""
    with redis.Redis.from_url(url, socket_timeout=10) as admin:
        admin.ping()
        with REFUSALS[kind](admin, url):
            yield
