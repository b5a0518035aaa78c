"""What is old goes, in small pieces; what is not, stays. A recipient is erased; counts stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from notifications import services, upkeep
from notifications.acceptance import KeyTaken
from notifications.models import (
    Attempt,
    Batch,
    ChannelFigures,
    Notification,
    NotificationKey,
    Sender,
    Status,
    StatusChange,
)
from notifications.tests.samples import (
    EMAIL,
    EVERYBODY,
    NEXT_MONTH,
    SMS,
    accept,
    accept_batch,
    failed,
    set_status,
)
from outbox.models import OperatorAction
from restapi.models import IdempotencyRow
from restapi.status_upkeep import prune_status_logs
from restapi.tests.sessions import other_session

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def aged(ids: list[str], *, updated_at: datetime = LONG_AGO) -> list[str]:
    """The same rows as if they had been accepted long ago: an id holds its time. Their new ids."""
    made = []
    for number, id_ in enumerate(ids):
        old = str(UUID(int=(int(LONG_AGO.timestamp() * 1000) << 80) + (7 << 76) + number))
        rows = Notification.objects.filter(id=id_)
        rows.update(id=old, created_at=LONG_AGO, updated_at=updated_at)
        made.append(old)
    return made


def left() -> set[str]:
    return {str(id_) for id_ in Notification.objects.values_list("id", flat=True)}


def test_what_is_finished_and_old_goes_with_its_attempts() -> None:
    ids = aged([each.id for each in accept(*[SMS] * 6)])
    for id_, status in zip(ids, Status, strict=True):
        set_status([id_], status)
        Attempt.objects.create(notification_id=id_, number=1)
    [fresh] = [each.id for each in accept(SMS)]
    set_status([fresh], Status.DELIVERED)
    assert upkeep.prune(chunk=2) == 3
    open_ones = {id_ for id_, status in zip(ids, Status, strict=True) if status not in (
        Status.DELIVERED, Status.FAILED, Status.CANCELLED)}  # fmt: skip
    assert left() == open_ones | {fresh}
    assert {
        str(id_) for id_ in Attempt.objects.values_list("notification_id", flat=True)
    } == open_ones


def test_an_old_one_that_ended_only_now_is_kept() -> None:
    """Scheduled far ahead, or sent again by hand."""
    ids = aged([each.id for each in accept(SMS)], updated_at=datetime.now(UTC))
    set_status(ids, Status.DELIVERED)
    assert upkeep.prune() == 0
    assert left() == set(ids)


def test_one_that_somebody_works_with_is_left_for_the_next_run() -> None:
    ids = aged([each.id for each in accept(SMS, SMS)])
    set_status(ids, Status.FAILED)
    with other_session() as other, other.transaction():
        other.execute("SELECT FROM notifications WHERE id = %s FOR UPDATE", (ids[0],))
        assert upkeep.prune() == 1
    assert left() == {ids[0]}
    assert upkeep.prune() == 1


def test_a_batch_goes_with_its_last_member() -> None:
    for count in (0, 1):
        batch = accept_batch(SMS)
        Batch.objects.filter(id=batch.id).update(id=UUID(int=count + 1))
        kept = Notification.objects.filter(batch_id=batch.id)
        kept.update(batch_id=UUID(int=count + 1)) if count else kept.delete()
    assert upkeep.prune() == 1
    assert [each.id for each in Batch.objects.all()] == [UUID(int=2)]


def test_keys_go_after_a_day() -> None:
    accept({**SMS, "idempotency_key": "old"}, {**SMS, "idempotency_key": "new"})
    old = NotificationKey.objects.order_by("id")[:1]
    day_ago = datetime.now(UTC) - timedelta(hours=24, minutes=1)
    NotificationKey.objects.filter(id__in=list(old.values_list("id", flat=True))).update(
        created_at=day_ago
    )
    assert upkeep.prune() == 1
    assert NotificationKey.objects.count() == 1


def test_senders_that_have_ended_go() -> None:
    now = datetime.now(UTC)
    for number, ago in enumerate([timedelta(minutes=61), timedelta(minutes=59)]):
        Sender.objects.create(id=UUID(int=number), name="high@here:1", seen_at=now - ago)
    assert upkeep.prune() == 1
    assert Sender.objects.get().id == UUID(int=1)


def log(*seqs: int | None, at: datetime = LONG_AGO) -> None:
    for seq in seqs:
        StatusChange.objects.create(
            seq=seq, notification_id=UUID(int=1), caller="shop", channel="sms",
            previous="pending", status="delivered", latency_ms=5, at=at,
        )  # fmt: skip


def logged() -> set[int | None]:
    return set(StatusChange.objects.values_list("seq", flat=True))


@pytest.mark.django_db  # in one transaction: no web process of other tests gives the last change its number
def test_the_log_keeps_what_is_not_counted_and_its_last_number() -> None:
    log(1, 2, 3, 4, None)
    prune_status_logs()
    assert logged() == {1, 2, 3, 4, None}
    ChannelFigures.objects.create(channel="sms", through_seq=2)
    prune_status_logs(chunk=1)
    assert logged() == {3, 4, None}
    ChannelFigures.objects.update(through_seq=4)
    prune_status_logs()
    assert logged() == {4, None}


def test_the_log_has_no_hole() -> None:
    """A transaction that was open for long is old and has a high number: who resumes would miss it."""
    ChannelFigures.objects.create(channel="sms", through_seq=4)
    log(1)
    log(2, at=datetime.now(UTC))
    log(3, 4)
    upkeep.prune()
    prune_status_logs()
    assert logged() == {2, 3, 4}


def test_a_log_that_was_emptied_is_pruned_from_its_beginning() -> None:
    ChannelFigures.objects.create(channel="sms", through_seq=9)
    StatusChange.objects.all().delete()
    prune_status_logs()
    log(1, 2)
    prune_status_logs()
    assert logged() == {2}


def test_pieces_are_small() -> None:
    set_status(aged([each.id for each in accept(*[SMS] * 5)]), Status.DELIVERED)
    with CaptureQueriesContext(connection) as captured:
        assert upkeep.prune(chunk=2) == 5
    deletes = [each for each in captured if "DELETE FROM notifications " in each["sql"]]
    assert len(deletes) == 3


# -- erasing


TEXT = "very private"


def everything() -> str:
    """All rows of all tables that may say something of a recipient."""
    tables = ("notifications", "notification_attempts", "notification_keys", "idempotency_keys",
              "notification_status_log", "event_outbox", "notification_batches", "operator_action")  # fmt: skip
    with connection.cursor() as cursor:
        found = ""
        for table in tables:
            cursor.execute(
                f"SELECT coalesce(string_agg(to_jsonb(t)::text, ' '), '') FROM {table} t"
            )
            found += cursor.fetchone()[0]
    return found


def kept_answer(number: int, **fields: Any) -> None:
    """An answer that is kept under an Idempotency-Key."""
    body = msgspec.json.encode({"notifications": [fields]})
    IdempotencyRow.objects.create(
        id=UUID(int=number), fingerprint=UUID(int=number), status=201, body=body
    )


def test_a_recipient_is_erased_everywhere() -> None:
    theirs = {"recipient": "o'neil@secret.example", "channel": "email", "content": TEXT}
    ids = [
        each.id
        for each in accept(
            theirs,
            {**theirs, "scheduled_at": NEXT_MONTH, "idempotency_key": "o'neil"},
            {**theirs, "template_variables": {"Name": "very private"}},
            EMAIL,
        )
    ]
    set_status(ids[2:3], Status.FAILED, error_message=f"550 no {theirs['recipient']}")
    Attempt.objects.create(notification_id=ids[2], number=1, error=f"550 {theirs['recipient']}")
    kept_answer(1, recipient=theirs["recipient"], content=TEXT)
    kept_answer(2, recipient="ann@example.com", content="Hello")
    call_command(
        "erase_recipient", theirs["recipient"], by="ann", note=f"{theirs['recipient']} asked for it"
    )
    after = everything()
    assert "secret.example" not in after
    assert "private" not in after
    assert [row.recipient for row in Notification.objects.order_by("id")] == [
        "", "", "", EMAIL["recipient"]
    ]  # fmt: skip
    assert sorted(Notification.objects.values_list("status", flat=True)) == [
        "cancelled", "cancelled", "failed", "pending"
    ]  # fmt: skip
    assert Attempt.objects.count() == 1
    assert list(IdempotencyRow.objects.order_by("id").values_list("status", flat=True)) == [
        410,
        201,
    ]
    assert StatusChange.objects.count() == 2
    [row] = OperatorAction.objects.all()
    assert (row.by, row.what, row.subject, row.why) == (
        *("ann", "erase", "a recipient", "… asked for it"),
    )
    assert (row.done, row.skipped, row.ended_at is None) == (3, 0, False)
    call_command("erase_recipient", theirs["recipient"])


def test_an_answer_whose_text_is_escaped_is_found_too() -> None:
    kept_answer(1, recipient='a"\\é\n')
    kept_answer(2, recipient="a")
    call_command("erase_recipient", 'a"\\é\n')
    assert list(IdempotencyRow.objects.order_by("id").values_list("status", flat=True)) == [
        410,
        201,
    ]


def test_what_was_erased_is_not_sent_again() -> None:
    """Neither by its key, which stays used, nor by hand."""
    keyed = {**SMS, "idempotency_key": "k"}
    [id_] = failed(keyed)
    call_command("erase_recipient", SMS["recipient"])
    with pytest.raises(KeyTaken):
        accept(keyed)
    with transaction.atomic():
        assert services.retry([UUID(id_)], owner=EVERYBODY) == []
    assert Notification.objects.get().status == "failed"


def test_what_is_under_way_is_said() -> None:
    [accepted] = accept(SMS)
    set_status([accepted.id], Status.PROCESSING)
    with pytest.raises(CommandError, match=r"^1 are being sent now"):
        call_command("erase_recipient", SMS["recipient"])
    set_status([accepted.id], Status.DELIVERED)
    call_command("erase_recipient", SMS["recipient"])
    assert Notification.objects.get().recipient == ""
