"""Starts our Python processes by forking one that has imported their libraries already.

Importing them is three quarters of what a start costs, and a pipeline is four such processes. What
is forked is otherwise as if it had been executed: a session, environment, directory and output of
its own, with `manage.py`, `-m celery` or a module of devtools.testing as `__main__`. Nothing of the product
is imported beforehand, nor what reads the environment when it is; of that only the bytecode is read.

    pytest ── spawn ──► zygote ── fork ──► manage.py run_bridge
                              ── fork ──► python -m celery …

When pytest dies the zygote is killed, and its processes with it.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import io
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import IO, Any

from devtools.localstack import launch, unit
from devtools.localstack import spawn as spawning
from devtools.localstack.spawn import spawn
from devtools.testing.patience import PATIENCE

__all__ = ["Forked", "can_fork", "fork", "fork_in_stacks", "run"]

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARIES = (
    *("billiard.pool", "celery.app", "celery.backends.redis", "celery.beat", "celery.bin.celery"),
    *("celery.concurrency.prefork", "celery.loaders.app", "celery.worker", "confluent_kafka.admin"),
    *("django.contrib.admin.utils", "django.contrib.admindocs.views"),
    *("django.contrib.auth.hashers", "django.contrib.postgres.forms", "django.core.cache"),
    *("django.contrib.staticfiles.finders", "django.core.handlers.asgi"),
    *("django.core.mail.backends.smtp", "django.core.management.base"),
    *("django.db.backends.postgresql.base", "django.db.migrations.operations", "django.db.models"),
    *("django.forms", "django.http", "django.template.loader", "django.urls", "django.views.debug"),
    *("drf_spectacular.utils", "email_validator", "http.server", "jsonschema"),
    *("kombu.transport.redis", "msgspec", "opentelemetry.sdk.trace", "pika", "psutil"),
    *("psycopg_binary", "pydantic_settings", "pyreqwest.client", "redis.asyncio", "requests"),
    *("rest_framework.serializers", "rich", "structlog", "unittest", "uritemplate", "uuid_utils"),
    *("uvloop", "wsgiref.simple_server", "yaml"),
)
# What is run in each process itself, because it reads settings: beside our own packages, those of
# these libraries.
READ = (
    *("django.contrib", "django_prometheus", "drf_spectacular", "drf_standardized_errors"),
    *("prometheus_client", "rest_framework"),
)
_ANSWER = b"zygote: "  # before an answer; anything else is an error's text
# What must find the environment of its process.
LATE = ("eventsite.settings", "prometheus_client")


def can_fork(command: Sequence[str]) -> bool:
    """Whether it is one of ours, in Python, and no launcher of others."""
    if command[0] != sys.executable:
        return False
    if command[1] == "-m":
        return command[2] == "celery" or command[2].startswith("devtools.testing.")
    return command[1] == "manage.py"


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
        give_up = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.02)
        return code

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def fork(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    errors: Path | None = None,
) -> Forked:
    """Start a command of which `can_fork` is true. `log` takes both its streams, or, with `errors`, what
    is no error."""
    request = {
        "arguments": list(command[1:]),
        "environment": dict(environment),
        "directory": str(directory),
        "log": str(log),
        "errors": str(errors or log),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    return Forked(_zygote().ask(request))


def run(
    *arguments: str, environment: Mapping[str, str], timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """What `python` with these arguments gives in the repository: `manage.py …`, `-m celery …`
    or `-c` with a program. `environment` is all of it. Raises TimeoutExpired after `timeout` seconds;
    the process is then gone."""
    with tempfile.TemporaryDirectory(prefix="eventsite-test-") as folder:
        log, errors = Path(folder, "log"), Path(folder, "errors")
        child = fork(
            (sys.executable, *arguments),
            environment=environment,
            directory=REPOSITORY,
            log=log,
            errors=errors,
        )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        return subprocess.CompletedProcess(arguments, code, log.read_text(), errors.read_text())


def fork_in_stacks() -> None:
    """A LocalStack of this process forks those of its programs that can be, from now on."""
    for module in (spawning, unit):
        setattr(module, "spawn", _fork_or_spawn)  # noqa: B010


def _fork_or_spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path | None,
    output: IO[bytes] | int | None,
    login: spawning.Login | None = None,
    **how: Any,
) -> Any:
    """The same as `spawn`. What is forked dies with the zygote, which dies with this process."""
    if login is None and directory == REPOSITORY and can_fork(command):
        assert output is not None
        assert not isinstance(output, int)
        return fork(command, environment=environment, directory=REPOSITORY, log=Path(output.name))
    return spawn(
        command, environment=environment, directory=directory, output=output, login=login, **how
    )


class _Zygote:
    """The process, seen from pytest; one request at a time, a line of JSON each way."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process = spawn(
            [sys.executable, "-m", "devtools.testing.zygote"],
            environment=os.environ,
            directory=REPOSITORY,
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


def _read(folder: Path) -> dict[str, CodeType | None]:
    """The bytecode of the modules below it, by path: reading it is a seventh of a start. None of it is
    run here."""
    return {
        str(path): SourceFileLoader(path.stem, str(path)).get_code(path.stem)
        for path in folder.rglob("*.py")
        if "tests" not in path.relative_to(folder).parts
    }


def _keep_bytecode() -> None:
    """Whoever imports one of those modules finds its bytecode in memory."""
    folders = [path.parent for path in REPOSITORY.glob("*/__init__.py")]
    for name in READ:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        folders += map(Path, spec.submodule_search_locations or ())
    known = {path: code for folder in folders for path, code in _read(folder).items()}
    read = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return known.get(loader.path) or read(loader, name)

    setattr(SourceFileLoader, "get_code", get_code)  # noqa: B010


def _serve() -> list[str]:
    """Answer requests. Returns in each process that was forked: with what it is to run."""
    zygote = os.getpid()
    ended: dict[int, int] = {}  # exit codes: two threads may ask for the same one
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "poll" in request:
            asked = request["poll"]
            if asked not in ended:
                pid, status = os.waitpid(asked, os.WNOHANG)
                if pid:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(asked)
        else:
            answer = os.fork()
            if not answer:
                return _become(request, zygote)
            ended.pop(answer, None)  # of an older one with this pid
        sys.stdout.buffer.write(_ANSWER + json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    sys.exit()


def _become(request: Mapping[str, Any], zygote: int) -> list[str]:
    os.setsid()
    launch.die_with(zygote, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_NOFILE, request["files"])
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # where it is, the environment says
    writing = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    opened = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(request["log"], writing),
        os.open(request["errors"], writing),
    )
    for standard, ours in enumerate(opened):
        os.dup2(ours, standard)
        os.close(ours)
    if os.environ.get("PYTHONUNBUFFERED"):  # or a kill takes what was printed along
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(write_through=True)
    arguments: list[str] = request["arguments"]
    return arguments


if __name__ == "__main__":
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    _keep_bytecode()
    assert not set(LATE) & sys.modules.keys()
    # What is loaded stays: collections in each process would look through it, and copy it for that.
    gc.collect()
    gc.freeze()
    gc.enable()
    file, *rest = _serve()
    # As Python does at its start: what runs here was started with another environment.
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [os.getcwd(), *filter(None, folders)]
    if file == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif file == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        exec(code, {"__name__": "__main__"})
    else:
        sys.argv = [file, *rest]
        runpy.run_path(file, run_name="__main__")
