"""Starts our Python processes by forking one that has imported their libraries already.

Importing them is three quarters of what a start costs, and a pipeline is four such processes. What
is forked is otherwise as if it had been executed: a session, environment, directory and output of
its own, `manage.py` or `-m celery` run as `__main__`. Nothing of ours is imported beforehand, nor
what reads the environment when it is.

    pytest ── spawn ──► zygote ── fork ──► manage.py run_bridge
                              ── fork ──► python -m celery …

When pytest dies the zygote is killed, and its processes with it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from devtools.localstack import launch
from devtools.localstack.spawn import spawn

__all__ = ["Forked", "can_fork", "fork"]

LIBRARIES = (
    *("billiard.pool", "celery.app", "celery.backends.redis", "celery.beat", "celery.bin.celery"),
    *("celery.concurrency.prefork", "celery.worker", "confluent_kafka.admin"),
    *("django.contrib.admin.utils", "django.contrib.staticfiles.finders", "django.core.cache"),
    *("django.core.management.base", "django.db.backends.postgresql.base", "django.db.models"),
    *("django.forms", "django.http", "django.template.loader", "django.urls"),
    *("django.views.debug", "http.server", "jsonschema", "kombu.transport.redis", "msgspec"),
    *("opentelemetry.sdk.trace", "psutil", "psycopg_binary", "pydantic_settings", "redis.asyncio"),
    *("requests", "rich", "structlog", "uuid_utils", "yaml"),
)
_ANSWER = b"zygote: "  # before an answer; anything else is an error's text
# What must find the environment of its process.
LATE = ("eventsite.settings", "prometheus_client")


def can_fork(command: Sequence[str]) -> bool:
    """Whether it is one of ours, in Python, and no launcher of others."""
    return command[0] == sys.executable and (
        command[1] == "manage.py" or tuple(command[1:3]) == ("-m", "celery")
    )


class Forked:
    """A process that the zygote has started, with what tests use of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Exit code, or minus the signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _zygote().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises TimeoutExpired."""
        give_up = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.02)
        return code

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def fork(
    command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path
) -> Forked:
    """Start a command of which `can_fork` is true; `log` takes both its streams."""
    request = {
        "arguments": list(command[1:]),
        "environment": dict(environment),
        "directory": str(directory),
        "log": str(log),
    }
    return Forked(_zygote().ask(request))


class _Zygote:
    """The process, seen from pytest; one request at a time, a line of JSON each way."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process = spawn(
            [sys.executable, "-m", "devtools.testing.zygote"],
            environment=os.environ,
            directory=Path.cwd(),
            output=subprocess.PIPE,
            input_=subprocess.PIPE,
        )
        atexit.register(self._end)

    def _end(self) -> None:
        self._process.communicate()  # closes its input, which is its end

    def ask(self, request: Mapping[str, Any]) -> Any:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        with self._guard:
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
            answer = answers.readline()
        assert answer.startswith(_ANSWER), answer
        return json.loads(answer.removeprefix(_ANSWER))


_zygote = cache(_Zygote)


def _serve() -> list[str]:
    """Answer requests. Returns in each process that was forked: with what it is to run."""
    zygote = os.getpid()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                return _become(request, zygote)
        sys.stdout.buffer.write(_ANSWER + json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    sys.exit()


def _become(request: Mapping[str, Any], zygote: int) -> list[str]:
    os.setsid()
    launch.die_with(zygote, signal.SIGKILL)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for ours, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(ours, standard)
    os.close(nothing)
    os.close(output)
    arguments: list[str] = request["arguments"]
    return arguments


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not set(LATE) & sys.modules.keys()
    file, *rest = _serve()
    # As Python does at its start: what runs here was started with another environment.
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [os.getcwd(), *filter(None, folders)]
    if file == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [file, *rest]
        runpy.run_path(file, run_name="__main__")
