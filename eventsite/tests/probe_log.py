"""The probe's topic for tests of audit and repair: publish, lose receipts, compare, redrive."""

from __future__ import annotations

from django.db import connection

from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC
from devtools.testing.pipeline import (
    PROBE_HANDLER,
    drain_all,
)
from outbox import conf
from outbox.audit import compare
from outbox.audit.compare import MissingReason
from outbox.audit.replay import ReplayPlan, plan
from outbox.dead_letters import due, redrive
from outbox.handlers.task import Effect
from outbox.kafka import admin
from outbox.models import OutboxEvent

ROUTE = conf.route_named(PROBE_HANDLER)


def publish(*keys: str, times: int = 1) -> None:
    for _ in range(times):
        probe_services.draw(keys)
    drain_all()


def logs() -> dict[str, admin.TopicState]:
    return admin.topic_states([PROBE_TOPIC.name])


def found() -> list[MissingReason]:
    return [each.reason for page in compare.pages(ROUTE, logs()) for each in page]


def lose_receipts(*numbers: int) -> None:
    """As if the effects of these numbers of each key had never been."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH lost AS (DELETE FROM probe_log WHERE seq = ANY(%s) RETURNING event_id)"
            " DELETE FROM inbox_receipt WHERE event_id IN (SELECT event_id FROM lost)",
            (list(numbers),),
        )


def redrive_all(effect: Effect = probe_services.append_entries) -> None:
    """What beat and the handler's task do with letters that are due."""
    while ids := due.claim_due(ROUTE):
        redrive.run_letters(handler=PROBE_HANDLER, letters=ids, effect=effect)


def partition_of(key: str) -> int:
    number = OutboxEvent.objects.filter(key=key).values_list("partition", flat=True).first()
    assert number is not None
    return number


def plan_of(handler: str, since: str = "start") -> ReplayPlan:
    route = conf.route_named(handler)
    return plan(route, admin.topic_states([route.topic.name])[route.topic.name], since=since)
