"""What the person at the terminal sees: the summary of `up`, `status` and `logs`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eventsite.localstack.errors import LocalStackError, NotReady, tail
from eventsite.localstack.probes import (
    Probe,
    http_answers,
    kafka_answers,
    postgres_answers,
    redis_answers,
)
from eventsite.localstack.record import Record, UnitRecord
from eventsite.localstack.state import State
from eventsite.localstack.terminal import say

__all__ = ["answer", "logs", "show", "status"]

LINES = 40  # of each log, without names fewer would do
POLL = 0.2  # seconds


def show(state: State, record: Record) -> None:
    """The compact summary of a running stack."""
    if not record.ready:
        say("It is still starting; `make status` shows when it is up.")
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("site", f"{record.base_url}/")
    table.add_row("admin", f"{record.base_url}/admin/")
    for line in record.admin.splitlines():
        table.add_row("", line)
    for name, description in record.servers.items():
        variable = {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}.get(
            name, "KAFKA_BOOTSTRAP_SERVERS"
        )
        where = "" if description.startswith("external") else f"  {record.environment[variable]}"
        table.add_row(name, f"{description}{where}")
    table.add_row("logs", f"{state.logs}/  (make logs)")
    Console(soft_wrap=True).print(table)


def status(state: State) -> int:
    """A table of everything; 0 if all of it is up and healthy."""
    record = Record.read(state.record)
    if record is None or not record.supervisor.is_alive():
        say("Nothing is running. `make up` starts it.")
        return 1
    if not record.ready:
        say("It is still starting.")
        return 1
    with ThreadPoolExecutor(len(record.units) or 1) as pool:
        answers = list(pool.map(lambda unit: answer(unit, record), record.units))
    table = Table("name", "pid", "state", "restarts", "port", "health")
    for unit, health in zip(record.units, answers, strict=True):
        alive = unit.identity is not None and unit.identity.is_alive()
        pid = str(unit.identity.pid) if unit.identity and alive else "-"
        up_or_dead = "up" if alive else "dead"
        table.add_row(unit.name, pid, up_or_dead, str(unit.restarts), str(unit.port), health)
    embedded = {unit.name for unit in record.units}
    for name, description in record.servers.items():
        if name not in embedded:
            table.add_row(name, "-", "external", "-", "-", description)
    Console(soft_wrap=True).print(table)
    return 0 if all(health == "ok" for health in answers) else 1


def answer(unit: UnitRecord, record: Record) -> str:
    """`ok`, or what is wrong with it."""
    if unit.identity is None or not unit.identity.is_alive():
        return "down"
    try:
        _probe(unit, record)()
    except NotReady as reason:
        return str(reason).splitlines()[0]
    return "ok"


def _probe(unit: UnitRecord, record: Record) -> Probe:
    if unit.health:
        return partial(http_answers, unit.health)
    match unit.name:
        case "postgres":
            return partial(postgres_answers, record.environment["DATABASE_URL"])
        case "redis":
            return partial(redis_answers, record.environment["REDIS_URL"])
        case _:
            return partial(kafka_answers, record.environment["KAFKA_BOOTSTRAP_SERVERS"])


def logs(state: State, names: list[str], *, follow: bool) -> int:
    """Print the end of the named logs (none: all), and with `follow` what is added to them."""
    known = {path.stem: path for path in sorted(state.logs.glob("*.log"))}
    if missing := [name for name in names if name not in known]:
        raise LocalStackError(f"No log of {', '.join(missing)}; there is: {', '.join(known)}.")
    chosen = {name: known[name] for name in names or known}
    prefixed = len(chosen) > 1
    offsets = {name: path.stat().st_size for name, path in chosen.items()}
    for name, path in chosen.items():
        for line in tail(path, LINES):
            _print(name, line, prefixed=prefixed)
    while follow:
        for name, path in chosen.items():
            offsets[name] = _print_new(name, path, offsets[name], prefixed=prefixed)
        time.sleep(POLL)
    return 0


def _print_new(name: str, path: Path, offset: int, *, prefixed: bool) -> int:
    """Print the whole lines added since `offset`; the new offset."""
    with suppress(OSError), path.open("rb") as file:
        if path.stat().st_size < offset:
            offset = 0  # rotated
        file.seek(offset)
        whole, newline, _ = file.read().rpartition(b"\n")
        for line in whole.decode(errors="replace").splitlines():
            _print(name, line, prefixed=prefixed)
        return offset + len(whole) + len(newline)
    return offset


def _print(name: str, line: str, *, prefixed: bool) -> None:
    say(f"{name}: {line}" if prefixed else line)
