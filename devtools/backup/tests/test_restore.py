"""PostgreSQL is lost and restored to a point in time, while Kafka and Redis go on to hold what came
after it."""

from __future__ import annotations

import json
import subprocess

import psycopg
import redis

from devtools.backup.postgres import base_backup, keep_wal, lose, now, restore
from devtools.localstack import PLAN, LocalStack, Plan
from devtools.localstack.unit import stop_all
from devtools.testing import zygote
from devtools.testing.account import take_account
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.upgrade.load import Crowd, Doors

SETTINGS = {"DJANGO_SETTINGS_MODULE": "devtools.probe.settings"}
NAMES = {"web", "worker-outbox", "worker-effects", "beat", "bridge"}
ORDERS = 15  # between one step and the next
ALL_APPLIED = """
    SELECT count(*) = count(receipt.event_id)
    FROM event_outbox event LEFT JOIN inbox_receipt receipt USING (event_id)
    WHERE topic IN ('order-events', 'orders.created')
"""


@needs_apache_kafka
def test_nothing_from_before_the_point_is_lost_and_what_came_after_is_named() -> None:
    processes = tuple(spec for spec in PLAN.processes if spec.name in NAMES)
    plan = Plan(processes, PLAN.preparation)
    with LocalStack.ephemeral(own_servers=True, plan=plan, extra_env=SETTINGS) as stack:
        doors = Doors(every=(stack.base_url,), only_orders=True)
        archive = keep_wal(stack)
        with Crowd(doors) as crowd:
            told = crowd.promises
            _more_orders(crowd, "before the backup")
            backup = base_backup(stack)
            _more_orders(crowd, "after the backup")
            before = dict(told.orders)
            point = now(stack)
            _more_orders(crowd, "after the point")
        # What is known to nobody but Kafka shall be all that came after the point.
        assert settles(lambda: _value(stack, ALL_APPLIED) is True)
        archive.wait_for_now(stack)
        accepted = dict(told.orders)

        lose(stack)
        stop_all(stack.units)
        restore(stack, backup, archive, point)

        stored = _stored(stack)
        assert before.keys() <= stored, "an order from before the point is lost"
        lost = accepted.keys() - stored
        assert lost, "nothing came after the point, so this says nothing"
        named = {event["key"] for event in _forgotten(stack) if event["type"] == "ORDER_CREATED"}
        assert named == lost

        _empty_redis(stack)
        stack.prepare(new_log=False)
        for unit in stack.units:
            unit.start()
        for unit in stack.units:
            unit.wait_ready()
        with Crowd(doors) as later:
            _more_orders(later, "after the restore")
        account = take_account(stack.env, within=PATIENCE)
        assert account.events == account.published, account
        assert account.heard == account.applied, account
        assert account.processed_events == account.simple_orders, account
        assert (account.figures_different, account.under_way) == (0, 0), account
        assert _stored(stack) == stored | later.promises.orders.keys()
        assert not later.promises.refused
        assert _manage(stack, "audit").returncode == 0
        twice = "SELECT count(*) - count(DISTINCT event_id) FROM processed_events"
        assert _value(stack, twice) == 0


def _more_orders(crowd: Crowd, when: str) -> None:
    wanted = len(crowd.promises.orders) + ORDERS
    assert settles(lambda: len(crowd.promises.orders) >= wanted), when


def _empty_redis(stack: LocalStack) -> None:
    """All but what the relay remembers."""
    with redis.Redis.from_url(stack.env["REDIS_URL"]) as server:
        for key in server.scan_iter():
            if not key.startswith(b"event:"):
                server.unlink(key)


def _stored(stack: LocalStack) -> set[str]:
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM orders")}


def _value(stack: LocalStack, query: str) -> object:
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _forgotten(stack: LocalStack) -> list[dict[str, str]]:
    answer = _manage(stack, "forgotten_events", "--json")
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def _manage(stack: LocalStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return zygote.run("manage.py", *arguments, environment=stack.env)
