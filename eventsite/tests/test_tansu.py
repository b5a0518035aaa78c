"""The whole path on the fallback broker, which forgets its log when it stops."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from devtools.localstack import LocalStack
from devtools.localstack.processes import ORDERS
from devtools.testing.account import take_account
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.steady import place_orders


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    environment = {
        "DJANGO_SETTINGS_MODULE": "devtools.probe.settings",
        "LOG_LEVEL": "WARNING",
    }
    with LocalStack.ephemeral(
        own_servers=True, kafka="tansu", plan=ORDERS, extra_env=environment
    ) as started:
        yield started


def unpublished(stack: LocalStack) -> int:
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        [count] = connection.execute(
            "SELECT count(*) FROM event_outbox WHERE status = 0"
        ).fetchone() or [0]
    return int(count)


def test_what_the_broker_forgot_is_published_again_and_applied_once(stack: LocalStack) -> None:
    port = int(stack.env["PORT"])
    first = place_orders(port, 10)
    before = take_account(stack.env, within=PATIENCE)
    before.assert_whole()
    assert (before.orders, before.events, before.kafka_duplicates) == (10, 20, 0)

    effects = stack.process("worker-effects")
    effects.stop()
    second = place_orders(port, 10)
    assert settles(lambda: unpublished(stack) == 0)
    kafka = stack.server("kafka")
    kafka.kill()
    kafka.start()
    kafka.wait_ready()
    stack.follow_new_log()
    assert "15 events published again" in stack.output["prepare"]
    effects.start()
    third = place_orders(port, 10)

    after = take_account(stack.env, within=PATIENCE, read_log=False)
    after.assert_whole()
    assert (after.orders, after.events) == (30, 60)
    assert len(set(first + second + third)) == 30
    assert all(unit.is_alive() for unit in stack.units)
