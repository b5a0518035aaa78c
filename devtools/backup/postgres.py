"""The steps of docs/operations.md, `Backup and restore`, on the embedded PostgreSQL of a stack."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from devtools.localstack import LocalStack, LocalStackError, Unit
from devtools.localstack.spawn import run

__all__ = ["Archive", "base_backup", "keep_wal", "lose", "now", "restore"]

BACKUP_SECONDS = 120.0
WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Archive:
    """Where segments of WAL are kept, beside the data and as the server's user."""

    folder: Path

    def wait_for_now(self, stack: LocalStack) -> None:
        """Until everything written so far is in it. Raises LocalStackError."""
        with _session(stack) as connection:
            [segment] = _row(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())")
            connection.execute("SELECT pg_switch_wal()")
            give_up = time.monotonic() + WAIT_SECONDS
            while not (self.folder / segment).exists():
                if time.monotonic() > give_up:
                    raise LocalStackError(f"WAL {segment} does not come to {self.folder}.")
                time.sleep(0.1)


def keep_wal(stack: LocalStack) -> Archive:
    """Have the server archive its WAL from now on; it is started again for that."""
    unit = stack.server("postgres")
    archive = Archive(unit.program.directory.with_name("wal-archive"))
    archive.folder.mkdir()
    _give(archive.folder, unit)
    # Under another name first: a copy that was cut off is never taken for a segment.
    place = shlex.quote(str(archive.folder))
    command = f"test ! -f {place}/%f && cp %p {place}/%f.part && mv {place}/%f.part {place}/%f"
    with _session(stack) as connection:
        for name, value in (("archive_mode", "on"), ("archive_command", command)):
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value)
            )
    unit.restart()
    unit.wait_ready()
    return archive


def base_backup(stack: LocalStack) -> Path:
    """A copy of the running server by pg_basebackup; its folder. The WAL of the copy itself is in the
    archive, and is read from there. The wheel's pg_verifybackup does not start, so nothing checks it."""
    unit = stack.server("postgres")
    folder = unit.program.directory.with_name("base-backup")
    folder.mkdir(mode=0o700)
    _give(folder, unit)
    _client(
        stack,
        *("pg_basebackup", "-h", "127.0.0.1", "-p", str(unit.program.port), "-U", "postgres"),
        *("--checkpoint=fast", "--wal-method=none", "-D", str(folder)),
    )
    return folder


def now(stack: LocalStack) -> datetime:
    """A point in time by the server's clock: what is committed before this call lies before it."""
    with _session(stack) as connection:
        [moment] = _row(connection, "SELECT clock_timestamp()")
    assert isinstance(moment, datetime)
    return moment


def lose(stack: LocalStack) -> None:
    """The server is gone with its data, at once."""
    unit = stack.server("postgres")
    unit.wanted = False
    unit.kill()
    shutil.rmtree(unit.program.directory)


def restore(stack: LocalStack, backup: Path, archive: Archive, until: datetime) -> None:
    """Put the backup in the place of the data, and start the server with the WAL up to a moment.

    Raises LocalStackError when it does not come up, or does not end its recovery."""
    unit = stack.server("postgres")
    data = unit.program.directory
    shutil.copytree(backup, data, symlinks=True)
    data.chmod(0o700)
    fetch = f"cp {shlex.quote(str(archive.folder))}/%f %p"
    with (data / "postgresql.auto.conf").open("a") as file:
        for name, value in (
            ("restore_command", fetch),
            ("recovery_target_time", until.isoformat(sep=" ")),
            ("recovery_target_action", "promote"),
        ):
            file.write(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n")
    (data / "recovery.signal").touch()
    _give(data, unit)
    unit.start()
    unit.wait_ready()
    give_up = time.monotonic() + WAIT_SECONDS
    while _in_recovery(stack):
        if time.monotonic() > give_up:
            raise LocalStackError(f"PostgreSQL is still in recovery; see {unit.log}.")
        time.sleep(0.1)


def _in_recovery(stack: LocalStack) -> bool:
    with _session(stack) as connection:
        [answer] = _row(connection, "SELECT pg_is_in_recovery()")
    return bool(answer)


def _client(stack: LocalStack, name: str, *arguments: str) -> None:
    """One of PostgreSQL's programs, as the server's user. Raises LocalStackError."""
    unit = stack.server("postgres")
    log = stack.state.log("backup")
    code, output = run(
        [str(Path(unit.program.command[0]).with_name(name)), *arguments],
        environment=unit.program.environment,
        directory=unit.program.directory,
        log=log,
        seconds=BACKUP_SECONDS,
        login=unit.program.login,
    )
    if code:
        raise LocalStackError(f"{name} failed: {output}")


def _give(folder: Path, unit: Unit) -> None:
    """To the user as whom the server runs, with everything in it."""
    if (login := unit.program.login) is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, login.uid, login.uid, follow_symlinks=False)


@contextmanager
def _session(stack: LocalStack) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
        yield connection


def _row(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    found: tuple[Any, ...] = row
    return found
