"""Commands in the foreground: `exec` in a stack of its own, `manage` and `run` on the running one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from devtools.localstack.environment import read_environment
from devtools.localstack.errors import LocalStackError
from devtools.localstack.processes import Plan
from devtools.localstack.record import Record
from devtools.localstack.spawn import spawn
from devtools.localstack.stack import LocalStack
from devtools.localstack.state import CLONE, StackState

__all__ = ["execute", "manage", "run_processes"]

GRACE = 10.0  # seconds a command has to follow SIGTERM
POLL = 0.1


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def execute(
    command: Sequence[str], *, plan: Plan, servers_only: bool, own_servers: bool, broker: str
) -> int:
    """Run the command with the stack's environment; its exit code, 128 + signal when one ended it.

    Raises LocalStackError when the stack does not start or the command does not exist.
    """
    stack = LocalStack.ephemeral(
        servers_only=servers_only, own_servers=own_servers, kafka=broker, plan=plan
    )
    try:
        with _signals_raise():
            try:
                stack.start()
                return _run(command, stack.env)
            finally:
                _ignore_signals()
                stack.stop()
    except _Terminated as ended:
        return 128 + ended.number


def manage(state: StackState, words: Sequence[str]) -> int:
    """Run manage.py with the addresses of the stack that `up` has left running; its exit code."""
    variables = _variables_of_running(state)
    child = subprocess.Popen(  # noqa: S603  (the person at the terminal chose the words)
        [sys.executable, "manage.py", *words], env=variables, cwd=CLONE
    )
    return _wait(child)


def run_processes(state: StackState, names: Sequence[str], *, plan: Plan) -> int:
    """Run these of our processes here until Ctrl-C, on the servers that `up` has left running; all
    but web without a name. When one of them ends, so do the others: its exit code, 0 after Ctrl-C."""
    specs = {spec.name: spec for spec in plan.processes}
    if unknown := set(names) - set(specs):
        raise LocalStackError(
            f"There is no process {', '.join(sorted(unknown))}; use one of {', '.join(specs)}."
        )
    variables = _variables_of_running(state)
    children: list[subprocess.Popen[bytes]] = []
    asked = _Asked()
    try:
        for spec in [specs[name] for name in names or specs if names or not specs[name].web]:
            own = {"SERVICE_NAME": spec.name, "METRICS_PORT": "0"}
            child = spawn(
                [
                    part.format(python=sys.executable, port=variables["PORT"])
                    for part in spec.command
                ],
                environment={**variables, **own},
                directory=CLONE,
                output=None,
                death_signal=signal.SIGTERM,
                new_session=False,  # Ctrl-C reaches them
            )
            children.append(child)
        while not asked.to_stop and all(child.poll() is None for child in children):
            time.sleep(POLL)
        if asked.to_stop:
            return 0
        ended = next(code for child in children if (code := child.poll()) is not None)
        return ended if ended >= 0 else 128 - ended
    finally:
        _ignore_signals()
        _stop(children)


class _Asked:
    """Notes that the process was asked to stop. Nothing is raised: that could lose a child that is
    just being started."""

    def __init__(self) -> None:
        self.to_stop = False
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.to_stop = True


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _variables_of_running(state: StackState) -> dict[str, str]:
    """The environment of a command on the stack that runs. Raises LocalStackError if none does."""
    record = Record.read(state.record)
    if record is None or not record.ready or not record.supervisor.is_alive():
        raise LocalStackError("No stack is running here: start one with `make up` or `make infra`.")
    variables = {**read_environment().variables, **record.environment}
    if sys.stderr.isatty():
        variables.setdefault("LOG_FORMAT", "console")
    return variables


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise LocalStackError(f"There is no command {command[0]}.")
    child = spawn(
        command,
        environment=environment,
        directory=None,
        output=None,
        new_session=False,  # it keeps the terminal
        input_=None,
    )
    try:
        code = _wait(child)
    except _Terminated:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
    return code if code >= 0 else 128 - code


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Ctrl-C reaches the command from the terminal; what it makes of it is its own matter."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


@contextmanager
def _signals_raise() -> Iterator[None]:
    def raise_(number: int, frame: FrameType | None) -> None:
        raise _Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, raise_)
    yield


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
