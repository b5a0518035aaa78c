"""Erasing a recipient: address and texts go, everywhere; rows, times and counts stay. So do idempotency
keys until their time is over: a request that is sent again must not send what was erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.db import transaction

from notifications import services
from notifications.letters import EVERYBODY
from notifications.models import WAITING, Notification, Status
from outbox.database.ask import changed_by
from restapi.retention import erase_answers_with

__all__ = ["ErasedRecipient", "erase_recipient"]

CHUNK = 500

_ERASE = """
    WITH theirs AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE recipient = %s AND status IN ('delivered', 'failed', 'cancelled')
        ORDER BY id LIMIT %s FOR UPDATE
    ), tried AS (
        UPDATE notification_attempts SET error = NULL
        WHERE notification_id IN (SELECT id FROM theirs) AND error IS NOT NULL
    )
    UPDATE notifications AS erased
    SET recipient = '', content = '', template_variables = NULL, idempotency_key = NULL,
        error_message = NULL, provider_message_id = NULL,
        discarded_at = coalesce(discarded_at, clock_timestamp())
    FROM theirs WHERE erased.id = theirs.id
"""


class ErasedRecipient(NamedTuple):
    """How many were cancelled first, how many were erased, how many kept answers were emptied, and
    how many are being sent just now: those are not erased yet."""

    cancelled: int
    erased: int
    answers: int
    under_way: int


def erase_recipient(recipient: str) -> ErasedRecipient:
    """Erase one. What waits to be sent to them is cancelled. In small transactions: to be started
    again after an interruption, or when some were under way."""
    cancelled = 0
    while ids := _waiting(recipient):
        with transaction.atomic():
            cancelled += len(services.cancel(ids, owner=EVERYBODY))
    erased = 0
    while count := _erase_some(recipient):
        erased += count
    answers = erase_answers_with(msgspec.json.encode(recipient))
    under_way = Notification.objects.filter(recipient=recipient, status=Status.PROCESSING).count()
    return ErasedRecipient(cancelled, erased, answers, under_way)


def _waiting(recipient: str) -> Sequence[UUID]:
    theirs = Notification.objects.filter(recipient=recipient, status__in=WAITING)
    return list(theirs.values_list("id", flat=True)[:CHUNK])


def _erase_some(recipient: str) -> int:
    with transaction.atomic():
        return changed_by(_ERASE, (recipient, CHUNK))
