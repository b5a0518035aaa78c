"""Processes of ours as tests run them: really started, on this test run's database, really ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from django.db import connection

from devtools.localstack.processes import PLAN
from devtools.localstack.spawn import Login, spawn
from devtools.testing.patience import PATIENCE
from devtools.testing.zygote import Forked, can_fork, fork

__all__ = [
    "Process",
    "Spec",
    "child_environment",
    "command_of",
    "free_port",
    "get_status",
    "running",
    "running_together",
    "spec_of",
]

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 15.0  # what Compose gives each process


@dataclass(frozen=True, slots=True)
class Process:
    """A process under test; its log holds both its output streams."""

    child: subprocess.Popen[bytes] | Forked
    log: Path
    health: str = ""  # URL

    @property
    def pid(self) -> int:
        return self.child.pid

    def kill(self) -> None:
        """SIGKILL to the process and its children, and wait for its end."""
        _signal_group(self.child.pid, signal.SIGKILL)
        self.child.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM, and SIGKILL for what is left after STOP_SECONDS; its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(STOP_SECONDS)
        self.kill()
        return self.child.wait()

    def last_lines(self, count: int = 30) -> str:
        """The end of the log, for a failure's message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run, where, and as which user. `environment` is all of it, see `child_environment`; it is
    ready once `ready_url` answers 200."""

    command: Sequence[str]
    environment: Mapping[str, str]
    ready_url: str | None = None
    directory: Path = REPOSITORY
    login: Login | None = None


def spec_of(name: str, **environment: str) -> Spec:
    """One of our processes on this test's servers, with a free port for its health."""
    port = free_port()
    given = child_environment(METRICS_PORT=str(port), **environment)
    return Spec(command_of(name, port), given, f"http://127.0.0.1:{port}/health")


@contextmanager
def running(
    command: Sequence[str],
    env: Mapping[str, str],
    ready_url: str | None = None,
    *,
    ready_within: float = PATIENCE,
) -> Iterator[Process]:
    """Run a command until the end of the block; it is entered once `ready_url` answers 200.

    The process is the head of its own group, dies with this one, and gets directories of its own
    for its log and its metrics. `env` is all of its environment: see `child_environment`.
    """
    with running_together([Spec(command, env, ready_url)], ready_within=ready_within) as [process]:
        yield process


@contextmanager
def running_together(
    specs: Iterable[Spec], *, ready_within: float = PATIENCE
) -> Iterator[list[Process]]:
    """The same for several, which start side by side and stop side by side."""
    specs = list(specs)
    started: list[Process] = []
    with tempfile.TemporaryDirectory(prefix="eventsite-test-") as directory:
        try:
            for number, spec in enumerate(specs):
                started.append(_start(spec, Path(directory, str(number))))
            for process, spec in zip(started, specs, strict=True):
                if spec.ready_url:
                    _wait_until_ready(process, spec.ready_url, ready_within)
            yield started
        except Exception as error:
            for process, spec in zip(started, specs, strict=False):
                error.add_note(f"\n-- {' '.join(spec.command)} said:\n{process.last_lines()}")
            raise
        finally:
            for process in started:
                if process.child.poll() is None:
                    process.child.terminate()
            for process in started:
                process.stop()


def _start(spec: Spec, directory: Path) -> Process:
    log, metrics = directory / "log", directory / "metrics"
    metrics.mkdir(parents=True)
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), **spec.environment}
    child: subprocess.Popen[bytes] | Forked
    if can_fork(spec.command) and spec.directory == REPOSITORY and spec.login is None:
        child = fork(spec.command, environment=environment, directory=REPOSITORY, log=log)
    else:
        with log.open("wb") as output:
            child = spawn(
                spec.command,
                environment=environment,
                directory=spec.directory,
                output=output,
                login=spec.login,
            )
    return Process(child, log, spec.ready_url or "")


def child_environment(**changes: str) -> dict[str, str]:
    """The environment of this test run, with its own database; `changes` win."""
    inherited = {
        name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"
    }
    return {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "devtools.testing.settings",
        "DATABASE_URL": _database_url(),
        **changes,
    }


def command_of(name: str, port: int = 0) -> tuple[str, ...]:
    """The command of one of our processes, as the local stack starts it."""
    [spec] = [spec for spec in PLAN.processes if spec.name == name]
    return tuple(part.format(python=sys.executable, port=port) for part in spec.command)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get_status(url: str, timeout: float = 2.0) -> int | None:
    """Status of a GET, or None when nobody answers."""
    assert urlsplit(url).scheme == "http"
    try:
        with urlopen(url, timeout=timeout) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except (URLError, HTTPException, OSError):
        return None


def _database_url() -> str:
    given = connection.settings_dict
    user = quote(given["USER"], safe="")
    password = f":{quote(given['PASSWORD'], safe='')}" if given["PASSWORD"] else ""
    port = f":{given['PORT']}" if given["PORT"] else ""
    return f"postgresql://{user}{password}@{given['HOST']}{port}/{quote(given['NAME'], safe='')}"


def _wait_until_ready(process: Process, url: str, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while get_status(url) != 200:
        if process.child.poll() is not None:
            raise AssertionError(
                f"It ended with {process.child.returncode}:\n{process.last_lines()}"
            )
        if time.monotonic() > give_up:
            raise AssertionError(f"{url} did not answer 200:\n{process.last_lines()}")
        time.sleep(0.05)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
