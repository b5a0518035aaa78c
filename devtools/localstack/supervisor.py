"""The background process of `make up`: owns the stack and starts again what dies."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from types import FrameType

import psutil

from devtools.localstack.errors import LocalStackError
from devtools.localstack.keeper import TICK, Keeper
from devtools.localstack.processes import Plan
from devtools.localstack.record import Identity, Record, UnitRecord
from devtools.localstack.stack import LocalStack, Options
from devtools.localstack.state import StackState
from devtools.localstack.terminal import log_entry, say
from devtools.localstack.unit import Unit

__all__ = ["READY", "supervise"]

READY = "\0ready"  # the line that ends a successful start
# What commands on the running stack work on: its servers, and its web process.
ADDRESSES = (
    *("PORT", "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_GROUP_PROTOCOL"),
    "RABBITMQ_URL",
)


class _Stopped(BaseException):
    """SIGTERM arrived, at whatever point."""


def supervise(state: StackState, plan: Plan, progress: int) -> int:
    """Start the stack, writing its progress line by line to the file descriptor, then keep it up.

    Ends with the stack stopped: on SIGTERM, on a failed start, and when nobody reads the progress
    any more (the `up` that wanted it was killed).
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def report(line: str) -> None:
        os.write(progress, f"{line}\n".encode())

    record = Record(supervisor=Identity.of(os.getpid()))
    stack = LocalStack(state, Options(ephemeral=False), plan=plan, report=report)
    try:
        state.create()
        record.write(state.record)
        try:
            stack.start()
            keeper = Keeper(
                _units(stack),
                on_death=_ended,
                on_restart=lambda unit: _restarted(stack, unit),
            )
            _write(record, stack, keeper)
            for unit in _units(stack):
                _started(unit)
            report(READY)
            os.close(progress)
            stack.report = _log
        except (LocalStackError, OSError) as error:
            _tell(progress, str(error))
            return 1
        _keep(record, stack, keeper)
    except _Stopped:
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        running = [unit for unit in _units(stack) if unit.is_alive()]
        _log("stopping")
        stack.stop()
        for unit in running:
            _ended(unit, level="info")
        _log("stopped")
        state.record.unlink(missing_ok=True)
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _tell(progress: int, line: str) -> None:
    try:
        os.write(progress, f"{line}\n".encode())
    except OSError:
        _log(line, level="error")


def _keep(record: Record, stack: LocalStack, keeper: Keeper) -> None:
    while True:
        try:
            if keeper.tick():
                _write(record, stack, keeper)
        except (LocalStackError, OSError) as error:
            _log(str(error), level="error")  # a full disk, say: keep what runs, and try again
        time.sleep(TICK)


def _units(stack: LocalStack) -> list[Unit]:
    return [*(server.unit for server in stack.servers if server.unit), *stack.units]


def _restarted(stack: LocalStack, unit: Unit) -> None:
    """A broker that has forgotten its log needs its topics and events again."""
    _started(unit)
    if any(server.unit is unit and server.forgets for server in stack.servers):
        try:
            unit.wait_ready()
            stack.follow_new_log()
        except LocalStackError as error:
            _log(str(error), level="error")


def _started(unit: Unit) -> None:
    """A program that has ended at once again has no pid by now; its end is logged next."""
    with suppress(LocalStackError):
        _log("started", program=unit.name, pid=unit.pid)


def _ended(unit: Unit, level: str = "warning") -> None:
    if unit.last_end is not None:
        pid, code = unit.last_end
        _log("ended", level, program=unit.name, pid=pid, exit_code=_exit_code(code))


def _exit_code(code: int) -> int | str:
    """As a person knows it: a number, or the name of the signal that ended the program."""
    try:
        return code if code >= 0 else signal.Signals(-code).name
    except ValueError:
        return code


def _log(event: str, level: str = "info", **fields: int | str) -> None:
    """Into the supervisor's own log, which is its standard output. A full disk must not keep it from
    its work."""
    with suppress(OSError):
        say(log_entry("supervisor", event, level, **fields))


def _write(record: Record, stack: LocalStack, keeper: Keeper) -> None:
    record.ready = True
    record.base_url = stack.base_url
    record.servers = {server.name: server.description for server in stack.servers}
    record.environment = {name: stack.env[name] for name in ADDRESSES if name in stack.env}
    record.admin = stack.output.get("prepare", "").rpartition("\n")[2]
    record.units = [_unit_record(unit, keeper.restarts[unit.name]) for unit in _units(stack)]
    record.write(stack.state.record)


def _unit_record(unit: Unit, restarts: int) -> UnitRecord:
    program = unit.program
    return UnitRecord(
        name=unit.name,
        port=program.port,
        log=str(unit.log),
        health=program.health,
        stop_signal=int(program.stop_signal),
        grace=program.grace,
        identity=_identity(unit),
        restarts=restarts,
    )


def _identity(unit: Unit) -> Identity | None:
    try:
        return Identity.of(unit.pid)
    except (LocalStackError, psutil.NoSuchProcess):
        return None
