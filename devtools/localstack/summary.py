"""What the person at the terminal sees: the summary of `up`, and `status`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rich.console import Console
from rich.table import Table

from devtools.localstack.errors import NotReady
from devtools.localstack.probes import (
    Probe,
    http_answers,
    kafka_answers,
    postgres_answers,
    redis_answers,
)
from devtools.localstack.record import Record, UnitRecord
from devtools.localstack.state import StackState
from devtools.localstack.terminal import say

__all__ = ["answer", "show", "status"]


# Server -> the variable that holds its address.
ADDRESSES = {
    "postgres": "DATABASE_URL",
    "redis": "REDIS_URL",
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "rabbitmq": "RABBITMQ_URL",
}


def show(state: StackState, record: Record) -> None:
    """The compact summary of a running stack."""
    if not record.ready:
        say("It is still starting; `make status` shows when it is up.")
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("site", f"{record.base_url}/")
    if {unit.name for unit in record.units} <= set(record.servers):
        table.add_row("next", "make run-api and make run-processor, each in a terminal of its own")
    table.add_row("operations", f"{record.base_url}/ops/")
    table.add_row("admin", f"{record.base_url}/admin/")
    if record.admin:
        table.add_row("login", record.admin.removeprefix("Admin login: "))
    table.add_row("API", f"{record.base_url}/swagger/")
    for name, description in record.servers.items():
        variable = ADDRESSES[name]
        where = "" if description.startswith("external") else f"  {record.environment[variable]}"
        table.add_row(name, f"{description}{where}")
    table.add_row("logs", f"make logs  (files in {state.logs}/)")
    table.add_row("stop", "make down  (make clean-state deletes the data too)")
    Console(soft_wrap=True).print(table)


def status(state: StackState) -> int:
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
