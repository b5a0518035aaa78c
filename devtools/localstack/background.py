"""`up`, `down` and `restart`: the stack that stays in the background."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from devtools.localstack import summary
from devtools.localstack.environment import MARKER, StackEnvironment, marked, read_environment
from devtools.localstack.errors import LocalStackError
from devtools.localstack.logins import private_folder
from devtools.localstack.record import Identity, Record, UnitRecord
from devtools.localstack.state import CLONE, StackState
from devtools.localstack.supervisor import READY
from devtools.localstack.terminal import say
from devtools.localstack.unit import rotate
from devtools.localstack.warden import remove, sweep

__all__ = ["down", "restart", "up"]

STOP_SECONDS = 40.0  # of the supervisor: processes, then servers, ten seconds each, and some more
KEPT = "jars"  # what `down --wipe` leaves: no state, only downloads


def up(state: StackState, plan: str | None) -> int:
    """Start the stack in the background, unless it runs already. Raises LocalStackError."""
    environment = read_environment()
    state.create()
    with _one_at_a_time(state):
        record = Record.read(state.record)
        if record and record.supervisor.is_alive():
            _refuse_another(environment, record)
            say("Already running.")
            summary.show(state, record)
            return 0
        _clean_up_after_crash(state, record)
        started = time.monotonic()
        if not _launch(
            state,
            plan,
            {**environment.variables, MARKER: marked(environment.variables, str(state.root))},
        ):
            raise LocalStackError("Nothing was left running.")
    record = Record.read(state.record)
    if record is None:
        raise LocalStackError(f"It stopped right after its start; see {state.log('supervisor')}.")
    say(f"Up in {time.monotonic() - started:.1f} s.")
    summary.show(state, record)
    return 0


def down(state: StackState, *, wipe: bool) -> int:
    """Stop the stack, whatever is left of it. Exit code 0 also when nothing ran."""
    record = Record.read(state.record)
    ran = record is not None and _stop_supervisor(record)
    ran = _clean_up_after_crash(state, record) or ran
    say("Stopped." if ran else "Nothing was running.")
    if wipe:
        _wipe(state)
    return 0


def restart(state: StackState, name: str) -> int:
    """Stop one server or process of the running stack; its supervisor starts it again."""
    record = Record.read(state.record)
    if record is None or not record.supervisor.is_alive():
        raise LocalStackError("Nothing is running. `make up` starts it.")
    units = {unit.name: unit for unit in record.units}
    if name not in units:
        raise LocalStackError(
            f"There is no server or process {name}; use one of: {', '.join(units)}."
        )
    before = units[name].identity
    _stop(units[name])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        record = Record.read(state.record)
        now = next((unit for unit in record.units if unit.name == name), None) if record else None
        if (
            record
            and now
            and now.identity not in (None, before)
            and summary.answer(now, record) == "ok"
        ):
            say(f"{name} was restarted.")
            return 0
        time.sleep(0.1)
    raise LocalStackError(f"{name} did not start again; see {state.log(name)}.")


def _refuse_another(environment: StackEnvironment, record: Record) -> None:
    """Raises LocalStackError when the caller asks for other addresses than the running stack has."""
    running = record.environment
    asked = {
        "PORT": str(environment.web_port or ""),
        "DATABASE_URL": environment.database_url,
        "REDIS_URL": environment.redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": environment.kafka_bootstrap_servers,
    }
    ports = {unit.name: unit.port for unit in record.units}
    for name, server, wanted in (
        ("POSTGRES_PORT", "postgres", environment.postgres_port),
        ("REDIS_PORT", "redis", environment.redis_port),
        ("KAFKA_PORT", "kafka", environment.kafka_port),
    ):
        if server in ports:
            asked[name] = str(wanted or "")
            running = {**running, name: str(ports[server])}
    # Names alone: an address may carry a password.
    others = [name for name, value in asked.items() if value and value != running.get(name)]
    if record.ready and others:
        port = f" (PORT={environment.web_port} was asked for)" if "PORT" in others else ""
        raise LocalStackError(
            f"A stack is running at {record.base_url}/ already, with another {', '.join(others)}"
            f"{port}. Stop it first with `make down`, or unset {', '.join(others)} to use it."
        )


def _launch(state: StackState, plan: str | None, environment: dict[str, str]) -> bool:
    """Start the supervisor and show its progress; whether it got ready. Ctrl-C takes it back."""
    read, write = os.pipe()
    rotate(state.log("supervisor"))
    with state.log("supervisor").open("ab") as log, os.fdopen(read) as progress:
        child = subprocess.Popen(  # noqa: S603 - this project itself
            [
                *(sys.executable, "-m", "devtools.localstack", "--state", str(state.root)),
                *(("--plan", plan) if plan else ()),
                *("supervise", str(write)),
            ],
            cwd=CLONE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write,),
            start_new_session=True,
        )
        os.close(write)
        try:
            for line in progress:
                if line.rstrip("\n") == READY:
                    return True
                say(line.rstrip("\n"))
        except BaseException:
            child.terminate()
            child.wait()
            raise
        child.wait()
    return False


def _stop_supervisor(record: Record) -> bool:
    supervisor = record.supervisor.process()
    if supervisor is None:
        return False
    with suppress(psutil.Error):
        supervisor.terminate()
        try:
            supervisor.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            supervisor.kill()
            supervisor.wait(5)
    return True


def _clean_up_after_crash(state: StackState, record: Record | None) -> bool:
    """End what a killed supervisor left; whether there was anything."""
    found = sweep(MARKER, str(state.root))
    for unit in record.units if record else ():
        process = unit.identity.process() if unit.identity else None
        if process is not None:
            with suppress(psutil.Error):
                process.kill()
                process.wait(5)
                found += 1
    state.record.unlink(missing_ok=True)
    return found > 0


def _stop(unit: UnitRecord) -> None:
    process = unit.identity.process() if unit.identity else None
    if process is None:
        return
    with suppress(psutil.Error):
        process.send_signal(unit.stop_signal)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(unit.grace)
        except psutil.TimeoutExpired:
            process.kill()


def _wipe(state: StackState) -> None:
    folder = private_folder(state.root / "postgres")
    if folder.exists():
        remove(str(folder))
    for path in state.root.glob("*"):
        owner = Identity.read(path / "owner.json")
        if path.name == KEPT or (owner is not None and owner.is_alive()):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    say(f"Deleted the state in {state.root}.")


@contextmanager
def _one_at_a_time(state: StackState) -> Iterator[None]:
    """A second `up` waits for the first, and then finds it running."""
    with (state.root / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
