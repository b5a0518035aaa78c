"""The background process of `make up`: owns the stack and starts again what dies."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

import psutil

from eventsite.localstack.errors import LocalStackError
from eventsite.localstack.keeper import TICK, Keeper
from eventsite.localstack.processes import Plan
from eventsite.localstack.record import Identity, Record, UnitRecord
from eventsite.localstack.stack import LocalStack, Options
from eventsite.localstack.state import State
from eventsite.localstack.terminal import say
from eventsite.localstack.unit import Unit

__all__ = ["READY", "supervise"]

READY = "\0ready"  # the line that ends a successful start
SERVER_VARIABLES = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_GROUP_PROTOCOL")


class _Stopped(BaseException):
    """SIGTERM arrived, at whatever point."""


def supervise(state: State, plan: Plan, progress: int) -> int:
    """Start the stack, telling its progress line by line to the file descriptor, then keep it up.

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
            keeper = Keeper(_units(stack), on_restart=lambda unit: _restarted(stack, unit))
            _write(record, stack, keeper)
            report(READY)
            os.close(progress)
            stack.report = say  # from now on into the supervisor's own log
        except (LocalStackError, OSError) as error:
            _tell(progress, str(error))
            return 1
        _keep(record, stack, keeper)
    except _Stopped:
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
        state.record.unlink(missing_ok=True)
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _tell(progress: int, line: str) -> None:
    try:
        os.write(progress, f"{line}\n".encode())
    except OSError:
        say(line)  # into the supervisor's own log


def _keep(record: Record, stack: LocalStack, keeper: Keeper) -> None:
    while True:
        try:
            if keeper.tick():
                _write(record, stack, keeper)
        except (LocalStackError, OSError) as error:
            say(str(error))  # a full disk, say: keep what runs, and try again
        time.sleep(TICK)


def _units(stack: LocalStack) -> list[Unit]:
    return [*(server.unit for server in stack.servers if server.unit), *stack.units]


def _restarted(stack: LocalStack, unit: Unit) -> None:
    """A broker that has forgotten its log needs its topics and events again."""
    say(f"{unit.name} was started again")
    if any(server.unit is unit and server.forgets for server in stack.servers):
        try:
            unit.wait_ready()
            stack.follow_new_log()
        except LocalStackError as error:
            say(str(error))


def _write(record: Record, stack: LocalStack, keeper: Keeper) -> None:
    record.ready = True
    record.base_url = stack.base_url
    record.servers = {server.name: server.description for server in stack.servers}
    record.environment = {name: stack.env[name] for name in SERVER_VARIABLES if name in stack.env}
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
