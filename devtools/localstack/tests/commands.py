"""The command line as tests run it: a state of its own, Tansu, dummy processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from devtools.localstack.environment import MARKER
from devtools.localstack.record import Record
from devtools.localstack.state import CLONE, StackState
from devtools.localstack.warden import marked
from devtools.testing.patience import PATIENCE

EXTERNAL = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "REDIS_ADDR")
SERVER_PORTS = ("POSTGRES_PORT", "REDIS_PORT", "KAFKA_PORT")


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "devtools.localstack", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without the servers that the tests themselves run on."""
    kept = {
        name: value for name, value in os.environ.items() if name not in EXTERNAL + SERVER_PORTS
    }
    return {**kept, "KAFKA_BROKER": "tansu", **changes}


class BackgroundStack:
    """`up` and its sisters on one state directory."""

    def __init__(self, state: StackState, port: int, plan: str = "WORKING") -> None:
        self.state = state
        self.port = port
        self.plan = plan

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(
                *("--state", str(self.state.root)),
                *("--plan", f"devtools.localstack.tests.plans:{self.plan}", *command),
            ),
            cwd=CLONE,
            env=environment(**{"PORT": str(self.port), **variables}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def record(self) -> Record:
        record = Record.read(self.state.record)
        assert record is not None
        return record

    def pid(self, name: str) -> int | None:
        identity = next(unit.identity for unit in self.record().units if unit.name == name)
        return identity.pid if identity else None


def left_over(root: Path) -> list[str]:
    """Names of the processes that belong to a state directory."""
    return [process.name() for process in marked(MARKER, str(root))]


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
