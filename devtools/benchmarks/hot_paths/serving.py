"""One web process under measurement, started as the local stack starts ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from devtools.localstack import LocalStack
from devtools.localstack.ports import Ports
from devtools.localstack.probes import http_answers
from devtools.localstack.processes import PLAN
from devtools.localstack.state import CLONE
from devtools.localstack.unit import Program, Unit

__all__ = ["BARE", "OURS", "UNGATED", "Served", "serving"]

OURS = "eventsite.asgi:application"
BARE = "devtools.benchmarks.hot_paths.bare:application"
UNGATED = "devtools.benchmarks.hot_paths.ungated:application"


@dataclass(frozen=True, slots=True)
class Served:
    """Where it listens, and its process."""

    url: str
    pid: int


@contextmanager
def serving(stack: LocalStack, application: str, **environment: str) -> Iterator[Served]:
    """The application behind uvicorn with our settings, gone after the block."""
    [spec] = [spec for spec in PLAN.processes if spec.web]
    name = f"web-{application.partition(':')[0].rpartition('.')[2]}"
    port = Ports(stack.state.ports).choose(f"{name}{len(environment)}")
    command = tuple(
        application if part == OURS else part.format(python=sys.executable, port=port)
        for part in spec.command
    )
    url = f"http://127.0.0.1:{port}"
    metrics = stack.state.root / "metrics" / name
    metrics.mkdir(parents=True, exist_ok=True)
    own = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "SERVICE_NAME": name, "LOG_LEVEL": "INFO"}
    program = Program(
        name=name,
        command=command,
        environment={**stack.env, **own, **environment},
        directory=CLONE,
        log=stack.state.log(name),
        port=port,
        probe=partial(http_answers, f"{url}/health"),
    )
    unit = Unit(program)
    unit.start()
    try:
        unit.wait_ready()
        yield Served(url, unit.pid)
    finally:
        unit.stop()
