"""Starts child processes so that none of them outlives this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Login", "run", "spawn"]

LAUNCHER = Path(__file__).with_name("launch.py")

# The kernel ties the death signal to the thread that forked, not to its process: a child started
# from a thread that ends would be killed with it. So one thread, which lasts, starts them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localstack-spawner")


@dataclass(frozen=True, slots=True)
class Login:
    """Another user (and its group of the same number) to run a program as.

    `capability` is the number of the one that it keeps of root's.
    """

    uid: int
    capability: int | None = None


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path | None,
    output: IO[bytes] | int | None,
    login: Login | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    new_session: bool = True,
    input_: IO[bytes] | int | None = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a command that gets `death_signal` when this process dies. `output` takes both its streams.

    With `new_session` the pid is also its process group, and Ctrl-C of the terminal does not reach it.
    """
    options = {
        "parent": os.getpid(),
        "death_signal": int(death_signal),
        "uid": login.uid if login else None,
        "capability": login.capability if login else None,
    }
    wrapped = [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps(options), *command]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - what the stack itself composed
            wrapped,
            cwd=directory,
            env=dict(environment),
            stdin=input_,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=new_session,
        )

    return _spawner.submit(start).result()


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    seconds: float,
    login: Login | None = None,
) -> tuple[int, str]:
    """Run a command to its end, its output added to `log`; exit code (-1: took too long) and output."""
    with log.open("ab") as file:
        begin = file.tell()
        child = spawn(
            command, environment=environment, directory=directory, output=file, login=login
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    with log.open("rb") as file:
        file.seek(begin)
        return code, file.read().decode(errors="replace")
