"""Commands in the foreground: `exec` in a stack of its own, `manage` on the running one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from eventsite.localstack.environment import read_environment
from eventsite.localstack.errors import LocalStackError
from eventsite.localstack.processes import Plan
from eventsite.localstack.record import Record
from eventsite.localstack.spawn import spawn
from eventsite.localstack.stack import LocalStack
from eventsite.localstack.state import CLONE, State

__all__ = ["execute", "manage"]

GRACE = 10.0  # seconds a command has to follow SIGTERM


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


def manage(state: State, words: Sequence[str]) -> int:
    """Run manage.py with the addresses of the stack that `up` has left running; its exit code."""
    record = Record.read(state.record)
    if record is None or not record.ready or not record.supervisor.is_alive():
        raise LocalStackError("No stack is running here: start one with `make up`.")
    variables = {**read_environment().variables, **record.environment}
    child = subprocess.Popen(  # noqa: S603  (the person at the terminal chose the words)
        [sys.executable, "manage.py", *words], env=variables, cwd=CLONE
    )
    return _wait(child)


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
