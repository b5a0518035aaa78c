"""`event_outbox_status` says in words what the table says in numbers, and stands in nobody's way."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import connection, models

from outbox.models import OutboxEvent

pytestmark = pytest.mark.django_db

Status = OutboxEvent.Status


def write(status: int) -> OutboxEvent:
    return OutboxEvent.objects.create(
        event_id=uuid4(),
        lane=0,
        topic="t",
        key="k",
        type="T",
        source="/",
        payload="",
        status=status,
    )


def query(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()]


def test_each_status_of_the_model_has_its_word() -> None:
    written = {write(status).event_id: status.name for status in Status}
    rows = query("SELECT event_id, status FROM event_outbox_status")
    assert {row[0]: row[1] for row in rows} == written
    assert set(written.values()) == {"NEW", "PUBLISHED", "HELD", "DEAD"}


def test_what_is_new_is_found_by_the_index_of_what_is_new() -> None:
    write(Status.NEW)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = "\n".join(
        str(row[0])
        for row in query("EXPLAIN SELECT count(*) FROM event_outbox_status WHERE status = 'NEW'")
    )
    assert "event_outbox_pending" in plan
    assert "Seq Scan" not in plan


def test_rows_are_deleted_and_columns_added_beside_it() -> None:
    """Neither the purge nor a migration that adds a column has to know of it."""
    row = write(Status.PUBLISHED)
    field = models.TextField(null=True)
    field.set_attributes_from_name("added_later")
    with connection.schema_editor() as editor:
        editor.add_field(OutboxEvent, field)
    OutboxEvent.objects.filter(id=row.id).delete()
    assert query("SELECT count(*) FROM event_outbox_status") == [(0,)]
