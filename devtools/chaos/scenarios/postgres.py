"""PostgreSQL stopped, frozen, cut off, stormed, held up, and set back in time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from django.db import connection

from devtools.chaos.ground import Ground
from devtools.chaos.load import ProbeEvent, WriteAttempt
from devtools.chaos.outcome import WriteOutcome
from devtools.chaos.scenarios.base import Scenario
from devtools.chaos.visitors import visiting
from devtools.testing.weather import Fault, Proxy, proxy_to, read_only
from outbox.database.unit_of_work import unit_of_work
from outbox.publish.events import publish

__all__ = ["SCENARIOS"]

ANSWERED_WITHIN = 10.0  # seconds, over HTTP


def immediate_stop(ground: Ground) -> None:
    postgres = ground.stack.server("postgres")
    for _ in range(1 if ground.quick else 3):
        with ground.fault("PostgreSQL: immediate stop and start"):
            os.kill(postgres.pid, signal.SIGQUIT)
            ground.wait(lambda: not postgres.is_alive(), 30, "PostgreSQL stopped")
            time.sleep(ground.seconds(3, 1))
            postgres.start()
            postgres.wait_ready()
        time.sleep(3)


def frozen(ground: Ground) -> None:
    """Each process of PostgreSQL is stopped, in the middle of what it does: TCP is acknowledged, and
    nothing is answered. Longer than a watchdog has patience with who stands still."""
    processes = {unit.name: unit.pid for unit in ground.stack.units}
    with visiting(int(ground.stack.env["PORT"])) as visits:
        time.sleep(2)
        with ground.fault("PostgreSQL is frozen"), ground.frozen("postgres"):
            begin = time.time()
            time.sleep(ground.seconds(75, 25))
            end = time.time()
        ground.wait(
            lambda: any(v.status == 200 and v.at > end for v in visits.met), 30, "served again"
        )
    # Of those who came last it may have gone on in time.
    met = visits.sent_between(begin, end - ANSWERED_WITHIN)
    ground.figures["visits"] = str(len(met))
    ground.figures["slowest answer"] = f"{max(visit.seconds for visit in visits.met):.1f} s"
    wrong = visits.faults(met, within=ANSWERED_WITHIN)
    ground.demand(not wrong, f"{len(wrong)} of {len(met)} visits, first: {wrong[:1]}")
    ground.demand(len({(visit.method, visit.path) for visit in met}) == 5, "a visitor met nothing")
    ended = [unit.name for unit in ground.stack.units if unit.pid != processes[unit.name]]
    ground.demand(not ended, f"they did not wait it out, but were started again: {ended}")


_proxies: list[Proxy] = []


def through_a_proxy(ground: Ground) -> AbstractContextManager[str] | None:
    return _through_a_proxy(ground)


@contextmanager
def _through_a_proxy(ground: Ground) -> Iterator[str]:
    url = ground.stack.env["DATABASE_URL"]
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with proxy_to(parts.hostname, parts.port) as proxy:
        _proxies.append(proxy)
        yield url.replace(f":{parts.port}/", f":{proxy.port}/")
    _proxies.remove(proxy)


def cut_at_commit(ground: Ground) -> None:
    [proxy] = _proxies
    cuts = 0
    with ground.fault(
        "the writer's connection is cut at COMMIT, before and after it is passed on", repeats=False
    ):
        for number in range(round(ground.seconds(60, 20))):
            proxy.set(Fault.BEFORE_COMMIT if number % 2 else Fault.AFTER_COMMIT)
            cuts += proxy.happened.wait(3)
            time.sleep(0.3)
    ground.figures["cuts"] = str(cuts)
    ground.demand(cuts > 5, f"only {cuts} connections were cut")


def terminate_storm(ground: Ground) -> None:
    ended = 0
    with ground.fault("pg_terminate_backend of everybody, five times a second"):
        give_up = time.monotonic() + ground.seconds(20, 6)
        while time.monotonic() < give_up:
            with suppress(psycopg.Error):
                ended += ground.evidence.rows(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )[0][0]
            time.sleep(0.2)
    ground.figures["sessions ended"] = str(ended)


def takes_no_writes(ground: Ground) -> None:
    """Longer than a chunk's deadline, after which its bridge writes down that it sends it again."""
    with ground.fault("PostgreSQL takes no writes"), read_only(ground.stack.env["DATABASE_URL"]):
        time.sleep(ground.seconds(60, 14))


def reader_holds_a_snapshot(ground: Ground) -> None:
    with psycopg.connect(ground.stack.env["DATABASE_URL"]) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM event_outbox")
        with ground.fault("a reader holds a snapshot", repeats=False):
            time.sleep(ground.seconds(180, 15))


def writer_holds_a_transaction(ground: Ground) -> None:
    """Its numbers are drawn long before they can be seen: who reads by "id > last" loses them."""
    seconds = ground.seconds(180, 15)
    holding = threading.Event()

    def hold() -> None:
        key = f"{ground.prefix}late"
        events = [ProbeEvent(event_id=str(uuid4()), key=key, seq=number) for number in range(1, 21)]
        with unit_of_work(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO probe_sequence (key, seq) VALUES (%s, 20)", (key,))
            publish(events)
            holding.set()
            give_up = time.monotonic() + seconds
            while time.monotonic() < give_up:
                # Idle in a transaction for 8 s would end the session.
                cursor.execute("SELECT 1")
                time.sleep(1)
        ground.attempts.append(WriteAttempt(WriteOutcome.COMMITTED, events, time.time()))
        connection.close()

    thread = threading.Thread(target=hold)
    with ground.fault("a writer holds its transaction open", repeats=False):
        thread.start()
        ground.demand(holding.wait(10), "the writer did not begin")
        thread.join()
    ground.demand(bool(ground.attempts), "the late transaction did not commit")


SCENARIOS = (
    Scenario(
        name="postgres-stop",
        title="PostgreSQL: immediate stop and start",
        play=immediate_stop,
        quick=True,
    ),
    Scenario(
        name="postgres-frozen",
        title="PostgreSQL frozen (SIGSTOP of all its processes) and continued",
        play=frozen,
        quick=True,
    ),
    Scenario(
        name="read-only",
        title="PostgreSQL takes no writes, as a standby in the middle of a failover",
        play=takes_no_writes,
    ),
    Scenario(
        name="cut-at-commit",
        title="the writer's connection is cut at the moment of COMMIT",
        play=cut_at_commit,
        writer_url=through_a_proxy,
        quick=True,
    ),
    Scenario(
        name="terminate-storm",
        title="pg_terminate_backend of every session, five times a second",
        play=terminate_storm,
    ),
    Scenario(
        name="held-by-reader",
        title="a reader holds a snapshot open for minutes",
        play=reader_holds_a_snapshot,
    ),
    Scenario(
        name="held-by-writer",
        title="a writer holds a transaction with events open for minutes",
        play=writer_holds_a_transaction,
    ),
)
