"""The whole path on the fallback broker, which forgets its log when it stops."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from eventsite.localstack import LocalStack
from eventsite.tests.account import take_account
from eventsite.tests.pipeline import settles
from eventsite.tests.steady import place_orders

SETTLES = 60.0  # seconds; a member that was left without partitions is replaced after 20


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    environment = {
        "PROBE": "1",
        "DJANGO_SETTINGS_MODULE": "eventsite.settings.local",
        "LOG_LEVEL": "WARNING",
    }
    with LocalStack.ephemeral(own_servers=True, kafka="tansu", extra_env=environment) as started:
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
    before = take_account(stack.env, within=SETTLES)
    before.assert_whole()
    assert (before.orders, before.events, before.kafka_duplicates) == (10, 20, 0)

    effects = stack.process("worker-effects")
    effects.stop()
    second = place_orders(port, 10)
    assert settles(lambda: unpublished(stack) == 0, within=SETTLES)
    kafka = stack.server("kafka")
    kafka.kill()
    kafka.start()
    kafka.wait_ready()
    stack.follow_new_log()
    assert "15 events published again" in stack.output["prepare"]
    effects.start()
    third = place_orders(port, 10)

    after = take_account(stack.env, within=SETTLES, read_log=False)
    after.assert_whole()
    assert (after.orders, after.events) == (30, 60)
    assert len(set(first + second + third)) == 30
    assert all(unit.is_alive() for unit in stack.units)
