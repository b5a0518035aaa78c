"""One running program of the stack (a server or one of our processes) and the handle on it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from devtools.localstack.errors import LocalStackError, NotReady, StartFailed
from devtools.localstack.probes import Probe, wait_until
from devtools.localstack.spawn import Login, spawn

__all__ = ["Program", "Unit", "rotate", "stop_all"]

STOPS_WITHIN = 5.0  # seconds from SIGSTOP until every thread stands still
LOG_ROTATES_AT = 20 * 1024 * 1024  # bytes; looked at when the program starts


@dataclass(frozen=True, slots=True)
class Program:
    """How to run one program, how to stop it and how to see that it is ready."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    port: int
    probe: Probe
    ready_within: float = 180.0  # seconds; a few, but many times that on a machine with other work
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    grace: float = 10.0  # seconds from the stop signal to SIGKILL
    login: Login | None = None
    before_start: Callable[[], None] = field(default=lambda: None)
    health: str = ""  # URL to ask from outside; servers are asked in their own protocol
    advice: str = ""  # what to do when it does not start


class Unit:
    """A program's life: `start`, `stop`, `kill`, `pause`, `resume`, and waiting until it is ready.

    Safe to use from several threads.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.wanted = False  # started and not stopped on purpose: a keeper starts it again
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def log(self) -> Path:
        return self.program.log

    @property
    def pid(self) -> int:
        """Pid of the running program, which is also its process group. Raises when it does not run."""
        if self._child is None or self._child.poll() is not None:
            raise LocalStackError(f"{self.name} is not running.")
        return self._child.pid

    @property
    def last_end(self) -> tuple[int, int] | None:
        """Pid and exit code (minus the signal's number) of the program that has ended, if it has."""
        child = self._child
        return (child.pid, child.returncode) if child and child.poll() is not None else None

    def is_alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it, unless it runs. Returns at once; `wait_ready` waits."""
        with self._lock:
            self.wanted = True
            if self.is_alive():
                return
            self.program.before_start()
            rotate(self.log)
            with self.log.open("ab") as output:
                self._child = spawn(
                    self.program.command,
                    environment=self.program.environment,
                    directory=self.program.directory,
                    output=output,
                    login=self.program.login,
                    death_signal=self.program.death_signal,
                )

    def revive(self) -> None:
        """Start it again if it should be running."""
        with self._lock:
            if self.wanted:
                self.start()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until its probe passes. Raises StartFailed when it exits or `timeout` seconds pass."""
        try:
            wait_until(
                self.program.probe,
                seconds=timeout or self.program.ready_within,
                alive=self.is_alive,
            )
        except NotReady as answer:
            raise StartFailed(self.name, str(answer), self.log, self.program.advice) from None

    def request_stop(self) -> None:
        """Send the stop signal and return: the first half of `stop`, for stopping several at once."""
        with self._lock:
            self.wanted = False
            if self._child is not None and self.is_alive():
                self._child.send_signal(self.program.stop_signal)
                self.resume()  # a paused program would not see the signal

    def stop(self, grace: float | None = None) -> None:
        """Stop it in its own way, by force when it takes longer than `grace` seconds."""
        with self._lock:
            self.request_stop()
            if self._child is None:
                return
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(self.program.grace if grace is None else grace)
            self._kill()

    def kill(self) -> None:
        """SIGKILL it and everything it started. A keeper, where there is one, starts it again."""
        with self._lock:
            self._kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP it and everything it started, and wait until no thread of it runs: alive, but silent."""
        for process in self._signal_all(signal.SIGSTOP):
            _wait_stopped(process)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _kill(self) -> None:
        if self._child is None:
            return
        self._signal_all(signal.SIGKILL)
        self._child.wait()
        # what had left the tree but not the process group
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> list[psutil.Process]:
        """Signal the whole tree: PostgreSQL's backends, for one, have sessions of their own."""
        if self._child is None or not self.is_alive():
            return []
        signalled = []
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._child.pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                    signalled.append(process)
        return signalled


def rotate(log: Path) -> None:
    with suppress(OSError):
        if log.stat().st_size > LOG_ROTATES_AT:
            log.replace(log.with_suffix(".log.1"))


def stop_all(units: list[Unit]) -> None:
    """Stop several at once; the slowest decides how long it takes."""
    for unit in units:
        unit.request_stop()
    begin = time.monotonic()
    for unit in units:
        unit.stop(max(0.0, unit.program.grace - (time.monotonic() - begin)))


def _wait_stopped(process: psutil.Process) -> None:
    """A signal is sent before it is obeyed: a thread may answer one more request meanwhile."""
    deadline = time.monotonic() + STOPS_WITHIN
    with suppress(psutil.NoSuchProcess):
        while time.monotonic() < deadline and not _stands_still(process):
            time.sleep(0.005)


def _stands_still(process: psutil.Process) -> bool:
    # only Linux shows a state for each thread, under an id like that of a process
    threads = (thread.id for thread in process.threads()) if psutil.LINUX else (process.pid,)
    return all(psutil.Process(thread).status() == psutil.STATUS_STOPPED for thread in threads)
