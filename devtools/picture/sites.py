"""What is pictured: a stack on which nothing is wrong, one on which everything is, one with a million of
everything, and one without its servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

import django
import psycopg
from rich.console import Console

from devtools.benchmarks.operations.fill import Amounts, fill, order_id
from devtools.localstack import PLAN, LocalStack, Plan
from devtools.localstack.record import Record
from devtools.localstack.state import clone_state

__all__ = ["STATES", "Site", "site_in"]

STATES = ("well", "unwell", "million", "away")
LOGIN_MINUTES = 2.0  # that the load goes on, so that the picture has its rates
ROOT = Path(__file__).parents[2]
LOADS = (
    ("--profile", "orders", "--rate", "12"),
    ("--profile", "feeds", "--rate", "8", "--users", "200"),
    ("--profile", "notifications", "--rate", "6"),
)
MILLION = Amounts(events=1_000_000, letters=1_000_000, orders=1_000_000, positions=10_000)


@dataclass(frozen=True, slots=True)
class Site:
    """A stack that can be pictured. `pages`: a short name -> a path; the first is the page of operators.
    `stack` is None if it is the one that runs here."""

    url: str
    pages: Mapping[str, str]
    stack: LocalStack | None = None

    def without_servers(self) -> Site:
        """The same when PostgreSQL, Redis and Kafka are gone. Only of a stack of its own."""
        assert self.stack is not None
        for server in self.stack.servers:
            if server.unit is not None:
                server.unit.stop()
        return replace(self, pages={"ops": "/ops/", "break-glass": "/ops/break-glass"})


@contextmanager
def site_in(state: str, *, minutes: float, share: float, console: Console) -> Iterator[Site]:
    """A site in one of STATES. `minutes`: of load before the picture, where the state is `well` and no stack runs
    here. `share`: of the rows of a million. A site that is to be away is unwell until its
    without_servers: nobody can log in without them."""
    if state == "well":
        with _well(minutes, console) as url:
            yield Site(url, _pages_of_well(url))
        return
    # Nobody takes away what is wrong, or what waits.
    web = Plan(tuple(spec for spec in PLAN.processes if spec.web), PLAN.preparation)
    with LocalStack.ephemeral(own_servers=True, plan=web, report=console.print) as stack:
        pages = _filled(stack, share, console) if state == "million" else _unwell(stack)
        yield Site(stack.base_url, pages, stack)


@contextmanager
def _well(minutes: float, console: Console) -> Iterator[str]:
    """The stack that runs here, or else one of its own under some load."""
    record = Record.read(clone_state().record)
    if record is not None and record.ready and record.supervisor.is_alive():
        yield record.base_url
        return
    with (
        LocalStack.ephemeral(report=console.print) as stack,
        tempfile.TemporaryDirectory() as folder,
    ):
        loads = [_load(stack, minutes + LOGIN_MINUTES, options, folder) for options in LOADS]
        try:
            console.print(f"{minutes:g} minutes of load …")
            time.sleep(minutes * 60)
            yield stack.base_url
        finally:
            for load in loads:
                load.terminate()
                load.wait()


def _load(
    stack: LocalStack, minutes: float, options: tuple[str, ...], folder: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (a command of ours)
        [
            *(sys.executable, str(ROOT / "manage.py"), "generate_load", *options),
            *("--url", stack.base_url, "--duration", f"{minutes * 60:.0f}s", "--check", "none"),
        ],
        env=stack.env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _pages_of_well(url: str) -> Mapping[str, str]:
    with urlopen(f"{url}/orders?limit=1", timeout=30) as answer:  # noqa: S310  (of this machine)
        orders = json.load(answer)
    wanted = orders[0]["orderId"] if orders else "nothing"
    return {
        "ops": "/ops/",
        "letters": "/ops/letters",
        "lanes": "/ops/lanes",
        "journey": f"/ops/journey?id={wanted}",
        "pause-handler": "/ops/act/pause-handler?on=record_sales",
        "pause-lanes": "/ops/act/pause-lanes?on=all",
    }


def _unwell(stack: LocalStack) -> Mapping[str, str]:
    os.environ.update(stack.env | {"LOG_LEVEL": "CRITICAL"})
    django.setup()
    from devtools.picture.unwell import make_unwell  # noqa: PLC0415  (needs Django)

    return make_unwell()


def _filled(stack: LocalStack, share: float, console: Console) -> Mapping[str, str]:
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:
        for done in fill(connection.cursor(), MILLION.share(share)):
            console.print(done)
        connection.execute("VACUUM")
    return {
        "ops": "/ops/",
        "letters": "/ops/letters",
        "lanes": "/ops/lanes",
        "journey": f"/ops/journey?id={order_id(1)}",
    }
