"""What tests of delivery share: rows that are ready, a sender in the test's process, what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
import redis
import uuid_utils
from django.conf import settings
from django.db import connection, connections
from django.utils import timezone

from devtools.provider.client import ProviderProcess
from notifications.delivery import rounds, sender
from notifications.models import ATTEMPTS_ALLOWED, Attempt, Notification, StatusChange
from notifications.providers import configured, message
from outbox import redis_client
from outbox.models import OutboxEvent

__all__ = [
    "accept",
    "attempts_of",
    "changes_of",
    "deliver",
    "due_now",
    "fresh_redis",
    "keys_of",
    "let_calls_last",
    "meanwhile",
    "outcomes_of",
    "providers",
    "reload",
    "senders",
    "webhook",
]


def accept(recipient: str = "+15550001", *, ready: bool = True, **fields: Any) -> Notification:
    """A notification as POST /notifications stores it; `ready`: its handler has seen it."""
    now = timezone.now()
    given: dict[str, Any] = {
        "id": UUID(str(uuid_utils.uuid7())),
        "caller": "tests",
        "recipient": recipient,
        "channel": "sms",
        "priority": "high",
        "content": "Hello",
        "status": "pending",
        "expires_at": now + timedelta(hours=1),
        "created_at": now,
        "updated_at": now,
        **fields,
    }
    given.setdefault("max_retries", ATTEMPTS_ALLOWED[given["priority"]])
    if ready:
        given.update(ready_at=now, due_at=given.get("due_at", now))
    return Notification.objects.create(**given)


def webhook(provider: ProviderProcess, **given: Any) -> dict[str, Any]:
    """Settings of a provider that is called here. It may take as long as any: how long it does says how
    busy the machine is."""
    return {"kind": "webhook", "url": provider.url, "timeout": message.LONGEST_TIMEOUT, **given}


def let_calls_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, their leases and tasks may take a minute and more: for tests that hold an answer until
    they have seen something. Before the providers are named."""
    monkeypatch.setattr(message, "LONGEST_TIMEOUT", 100.0)
    monkeypatch.setattr(rounds, "LEASE_SECONDS", 120.0)
    monkeypatch.setattr(sender, "GIVE_UP_SECONDS", 110.0)


@contextmanager
def meanwhile(watch: Callable[[], None]) -> Iterator[None]:
    """On a thread of its own while the block runs, which waits for it; what it raises is raised here."""

    def closing() -> None:
        try:
            watch()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(closing)
        yield
        watching.result()


@contextmanager
def providers(**given: dict[str, Any]) -> Iterator[None]:
    """PROVIDERS for the block."""
    before = settings.PROVIDERS
    settings.PROVIDERS = given
    configured.configured.cache_clear()
    try:
        yield
    finally:
        settings.PROVIDERS = before
        configured.configured.cache_clear()


@contextmanager
def senders() -> Iterator[None]:
    """The senders of this process, new ones, until the end of the block: then their connections are
    closed, so that the test's database can be emptied."""
    sender._process = None
    try:
        yield
    finally:
        process: Any = sender._process
        sender._process = None
        if process is not None:
            for each in process.senders.values():
                each._thread.submit(connections.close_all).result()
                each._thread.shutdown()
                for provider in each._providers.values():
                    process.loop.run_until_complete(provider.close())
            process.loop.close()


def deliver(priority: str = "high") -> int:
    """One delivery task; how many calls it made."""
    return sender.deliver(priority)


def fresh_redis() -> None:
    """Nothing of turns, breakers and limits, and no memory of its loss."""
    redis_client.note_back()
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        names = [*server.scan_iter("notifications:*"), *server.scan_iter("pacing:*")]
        if names:
            server.delete(*names)


def due_now() -> None:
    """What waits for a time waits no more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notifications SET due_at = clock_timestamp()"
            " WHERE status = 'pending' AND due_at IS NOT NULL"
        )
        cursor.execute("DELETE FROM notification_holds")


def reload(notification: Notification) -> Notification:
    """As it is now."""
    return Notification.objects.get(id=notification.id)


def attempts_of(notification: Notification) -> list[Attempt]:
    """The first one first."""
    return list(Attempt.objects.filter(notification_id=notification.id).order_by("number"))


def outcomes_of(notification: Notification) -> list[str | None]:
    """How each attempt ended."""
    return [attempt.outcome for attempt in attempts_of(notification)]


def changes_of(notification: Notification) -> list[str]:
    """What became of it, one after the other: as the log tells it, and as the events do."""
    changes = StatusChange.objects.filter(notification_id=notification.id).order_by("id")
    logged = list(changes.values_list("previous", "status"))
    assert all(after == before for (_, after), (before, _) in pairwise(logged)), logged
    events = OutboxEvent.objects.filter(topic="notification-status", key=str(notification.id))
    published = [json.loads(event.payload)["status"] for event in events.order_by("id")]
    assert published == [status for _, status in logged]
    return published


def keys_of(provider: ProviderProcess, notification: Notification) -> list[str]:
    """Idempotency keys of what arrived of it."""
    prefix = str(notification.id)
    return [each.key for each in provider.arrivals() if each.key.startswith(prefix)]
