"""Requests in flight while the web process is killed, PostgreSQL restarts, or clients hang up.

`python -m devtools.benchmarks.in_flight` shows the accounts, and does it with all of these at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest
from django.conf import settings

from devtools.localstack import LocalStack
from devtools.localstack.processes import PLAN
from devtools.testing.in_flight import Account, Volley, account_of, fire, raise_file_limit
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles

OTHER_FILES = 1000


ALLOWED = resource.getrlimit(resource.RLIMIT_NOFILE)
# Ten thousand, where the system allows a process so many connections.
MANY = ALLOWED[1] == resource.RLIM_INFINITY or ALLOWED[1] >= 10_000 + OTHER_FILES
REQUESTS = 10_000 if MANY else 1500
IN_DJANGO = settings.WEB_THREADS + 3
WEB_ONLY = PLAN.only("web")


def post(url: str) -> tuple[int, bytes]:
    """One order; status and body."""
    body = b'{"user_id": "at-the-end", "amount": 1}'
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    raise_file_limit(REQUESTS + OTHER_FILES)
    own = {"DJANGO_SETTINGS_MODULE": "eventsite.settings.local"}
    with LocalStack.ephemeral(
        own_servers=True, kafka="tansu", plan=WEB_ONLY, extra_env=own, report=lambda _: None
    ) as started:
        yield started
    resource.setrlimit(resource.RLIMIT_NOFILE, ALLOWED)


def judged(stack: LocalStack, run: str, volley: Volley) -> Account:
    """What is stored, after checking that the path works again and nothing is wrong."""
    again = asyncio.run(fire(stack.base_url, run=f"{run}-again", requests=20))
    assert len(again.accepted) == 20, again
    account = account_of(stack.env["DATABASE_URL"], run, volley)
    assert account.faults == 0, (account, str(volley))
    assert not volley.unexpected
    return account


def volley_with(
    stack: LocalStack, run: str, fault: Callable[[], None], hit: Callable[[Volley], object]
) -> tuple[str, Volley]:
    """A volley that the fault has met, and its name. On a busy machine all may be answered before
    the fault comes: then that volley is judged too, and there is another."""
    for attempt in range(10):
        name = f"{run}-{attempt}"
        volley = asyncio.run(
            fire(stack.base_url, run=name, requests=REQUESTS, fault=fault, fault_at=0.002)
        )
        if hit(volley):
            return name, volley
        judged(stack, name, volley)
    pytest.fail("the fault came too late ten times")


def test_the_web_process_is_killed(stack: LocalStack) -> None:
    web = stack.process("web")

    def restart() -> None:
        web.kill()
        web.start()
        web.wait_ready()

    run, volley = volley_with(stack, "kill", restart, lambda volley: volley.gone)
    account = judged(stack, run, volley)
    assert len(volley.accepted) <= account.stored < REQUESTS + 20


def test_postgresql_is_killed_and_comes_back(stack: LocalStack) -> None:
    server = stack.server("postgres")

    def restart() -> None:
        server.kill()
        server.start()
        server.wait_ready()

    run, volley = volley_with(stack, "restart", restart, lambda volley: volley.refused)
    judged(stack, run, volley)
    assert not volley.gone, volley
    assert volley.answered == volley.requests


def test_clients_hang_up(stack: LocalStack) -> None:
    volley = asyncio.run(fire(stack.base_url, run="hang", requests=REQUESTS, hanging_up=0.5))
    judged(stack, "hang", volley)
    assert set(volley.gone.values()) == {"hung up"}, volley
    assert len(volley.accepted) == volley.requests - len(volley.gone) > 0, volley


@pytest.fixture
def swept(stack: LocalStack) -> Iterator[None]:
    yield
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        connection.execute("TRUNCATE orders, order_lines, order_changes, event_outbox")


@pytest.mark.usefixtures("swept")
def test_the_account_sees_what_is_wrong(stack: LocalStack) -> None:
    """Each kind of damage, made by hand."""
    volley = asyncio.run(fire(stack.base_url, run="bad", requests=40))
    url = stack.env["DATABASE_URL"]
    assert account_of(url, "bad", volley).faults == 0
    ids = iter(volley.accepted.items())
    with psycopg.connect(url) as connection:
        (_, lost), (twin, half), (_, halved), (told, _) = (next(ids) for _ in range(4))
        for table, column in (("order_changes", "order_id"), ("order_lines", "order_id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = %s", (lost,))
        connection.execute("DELETE FROM orders WHERE id = %s", (lost,))
        connection.execute("DELETE FROM order_changes WHERE order_id = %s", (half,))
        connection.execute("DELETE FROM event_outbox WHERE key = %s", (halved,))
        connection.execute(
            "INSERT INTO orders SELECT gen_random_uuid(), customer_id, total, status, created_at"
            " FROM orders WHERE id = %s",
            (half,),
        )
    volley.refused[told] = "not_stored"
    assert twin in volley.accepted
    assert account_of(url, "bad", volley) == Account(
        stored=40,
        missing=1,
        stored_though_refused=1,
        twice=1,
        half_written=3,
        events_of_nothing=1,
    )


def test_a_postgresql_that_does_not_answer_keeps_nobody_from_stopping(stack: LocalStack) -> None:
    """The process ends. Whoever was under way is told that nobody knows, whoever only waited, for his
    batch or for one of Django's threads, that nothing is stored."""
    web = stack.process("web")
    for path in ("/orders", "/orders?by=django"):
        assert post(stack.base_url + path)[0] == 200
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as session:
        rows = session.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        frozen = [pid for (pid,) in rows]
    frozen.append(stack.server("postgres").pid)  # which would begin new sessions
    with ThreadPoolExecutor(2 + IN_DJANGO) as pool:

        def asked(path: str) -> Future[tuple[int, bytes]]:
            return pool.submit(post, stack.base_url + path)

        try:
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            first = asked("/orders")
            time.sleep(0.7)  # until it is under way
            others = [asked("/orders"), *(asked("/orders?by=django") for _ in range(IN_DJANGO))]
            time.sleep(0.3)  # the stop ends before the first one's patience does
            os.kill(web.pid, signal.SIGTERM)
            told = [each.result(PATIENCE) for each in (first, *others)]
            assert settles(lambda: not web.is_alive())
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            web.start()
            web.wait_ready()
    assert [status for status, _ in told] == [503] * len(told), told
    under_way, queued, *djangos = [json.loads(body)["outcome"] for _, body in told]
    if settings.HOT_PATHS:
        assert (under_way, queued) == ("unknown", "not_stored")
    else:
        djangos += [under_way, queued]
    # Those on a thread are told by whichever bound comes first, the stop's or the database's own.
    assert set(djangos) <= {"unknown", "not_stored"}
    assert djangos.count("not_stored") >= len(djangos) - settings.WEB_THREADS
