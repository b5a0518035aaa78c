"""Failed notifications on the page: among the dead letters, with a way to what was tried; however many were
discarded before them."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client

from notifications.delivery import deadlines
from notifications.letters import FAILED_NOTIFICATIONS
from notifications.models import Notification
from notifications.tests.samples import SMS, failed
from operations import pipeline
from operations.judge import Judge
from operations.letters import LetterGroup
from operations.pages import LETTERS, live_part
from operations.tests.well import postgres, snapshot
from outbox.declaration import LetterQuery
from outbox.tests.admin_pages import log_in, rows_touched
from outbox.upkeep.gauges import Backlog

pytestmark = pytest.mark.django_db

MANY = 2_000


def groups() -> list[LetterGroup]:
    """Of notifications, as the page has them."""
    return [
        group
        for group in pipeline.ask_postgres(Backlog()).letters
        if group.handler == FAILED_NOTIFICATIONS.name
    ]


def test_they_are_on_the_page_and_lead_to_what_was_tried() -> None:
    [id_] = failed(SMS)
    [group] = groups()
    assert (group.letters, group.like) == (1, id_)
    shown = snapshot(Judge([]), from_postgres=postgres(letters=[group]))
    assert f'href="/ops/journey?id={id_}"' in live_part(shown, frozenset({LETTERS}))
    assert id_ not in live_part(shown, frozenset())
    client = log_in()
    listed = get(client, "/ops/letters")
    [link] = re.findall(rf'href="(/ops/[^"]*{id_})">', listed)
    journey = get(client, link)
    assert "notification" in journey
    assert f'href="/admin/notifications/notification/{id_}/change/"' in journey


def get(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_what_was_discarded_hides_nothing_and_costs_nothing() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notifications (id, caller, recipient, channel, priority, content, status,"
            " expires_at, max_retries, created_at, updated_at, discarded_at)"
            " SELECT md5(i::text)::uuid, 'shop', 'r', 'push', 'low', 'x', 'failed', now(), 2, now(),"
            " now(), now() FROM generate_series(1, %s) i",
            (MANY,),
        )
    assert deadlines.of_failed() == ()
    assert groups() == []
    [id_] = failed(SMS)
    Notification.objects.filter(id=id_).update(id="ffffffff-ffff-4fff-bfff-ffffffffffff")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE notifications")
    [time] = deadlines.of_failed()
    assert time.name == "failed notifications"
    assert [group.letters for group in groups()] == [1]
    assert rows_touched(deadlines._FAILED_FIRST % 200) <= 10
    assert [letter.attempts for letter in FAILED_NOTIFICATIONS.find(LetterQuery(), 10)] == [1]
