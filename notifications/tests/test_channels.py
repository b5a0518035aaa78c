"""Pausing a channel: nothing of it is claimed, what waits says why, and a claim that has begun is waited for."""

from __future__ import annotations

import threading
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from devtools.provider.client import ProviderProcess
from devtools.testing.pipeline import settles
from notifications import metrics
from notifications.delivery import rows
from notifications.delivery.breakers import Breakers
from notifications.delivery.channels import (
    UnknownChannel,
    channel_statuses,
    pause_channel,
    resume_channel,
)
from notifications.delivery.measure import hops, measure_waiting
from notifications.models import Notification
from notifications.tests.sending import accept, deliver, meanwhile, reload
from outbox import operator_log
from outbox.models import OperatorAction
from outbox.operator_log import DoneAlready

pytestmark = pytest.mark.django_db(transaction=True)


def pause(channel: str = "sms") -> int:
    return pause_channel(channel, reason="a bad text", by="ada")


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("channels", *arguments, stdout=out)
    return out.getvalue()


def paused() -> list[str]:
    return [status.channel for status in channel_statuses() if status.paused]


def test_what_is_of_a_paused_channel_waits_and_the_others_are_sent(
    provider: ProviderProcess,
) -> None:
    waits, goes = accept(), accept(channel="email", recipient="a@example.org")
    assert pause() == 0
    assert deliver() == 1
    assert (reload(waits).status, reload(goes).status) == ("pending", "delivered")
    assert reload(waits).attempt == 0
    resume_channel("sms", by="ada", reason="mended")
    assert deliver() == 1
    assert reload(waits).status == "delivered"


def test_a_claim_that_others_have_looked_for_finds_nothing(provider: ProviderProcess) -> None:
    """What was ready a moment ago is asked for anew in the claim itself."""
    accept()
    pause()
    with transaction.atomic():
        assert rows.claim("high", {"sms": 5}, seconds=15.0) == []


def test_a_pause_waits_for_a_claim_that_has_begun(provider: ProviderProcess) -> None:
    """So when it returns, whatever was claimed is known."""
    accept()
    claimed, ended = threading.Event(), threading.Event()
    output: list[int] = []

    def claims() -> None:
        with transaction.atomic():
            assert len(rows.claim("high", {"sms": 5}, seconds=60.0)) == 1
            claimed.set()
            assert settles(_somebody_waits)
            ended.set()

    with meanwhile(claims):
        assert claimed.wait(60)
        output.append(pause())
        assert ended.is_set(), "it did not wait"
    assert output == [1]


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(cursor.fetchone()[0])


def test_what_waits_says_why(provider: ProviderProcess) -> None:
    accept()
    pause()
    measure_waiting(Breakers())

    def waiting(reason: str) -> float:
        return float(metrics.WAITING.labels("sms", "high", reason)._value.get())

    assert (waiting("paused"), waiting("ready")) == (1, 0)
    assert metrics.CHANNEL_PAUSED.labels("sms")._value.get() == 1
    assert metrics.CHANNEL_PAUSED.labels("push")._value.get() == 0
    [hop] = [hop for hop in hops() if hop.name == "sms"]
    assert any(note.startswith("1 paused, the oldest ") for note in hop.notes)
    assert "paused by ada: a bad text" in hop.notes
    [time] = hop.times
    assert time.name == "channel sms, paused"
    assert 0 < time.left <= time.whole
    assert hop.figures["notification_channel_paused"] == 1
    resume_channel("sms", by="ada")
    measure_waiting(Breakers())
    assert (waiting("paused"), waiting("ready")) == (0, 1)
    assert metrics.CHANNEL_PAUSED.labels("sms")._value.get() == 0


def test_what_has_failed_is_there_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "NOTIFICATION_RETENTION_HOURS", 100)
    assert all(not hop.times for hop in hops())
    old, discarded = (accept(status="failed", ready=False) for _ in range(2))
    hour = timedelta(hours=1)
    now = timezone.now()
    Notification.objects.filter(id=old.id).update(updated_at=now - 40 * hour)
    Notification.objects.filter(id=discarded.id).update(
        updated_at=now - 90 * hour, discarded_at=now
    )
    [time] = [time for hop in hops() for time in hop.times]
    assert time.name == "failed notifications"
    assert 59 < time.left / 3600 <= 60


def test_who_did_it_and_why_is_kept_once_for_each_form() -> None:
    once = uuid4()
    pause_channel("sms", reason="a bad text", by="ada", once=once)
    resume_channel("sms", reason="mended", by="bob")
    with pytest.raises(DoneAlready):
        pause_channel("sms", reason="a bad text", by="ada", once=once)
    assert paused() == []
    output = [(each.by, each.what, each.subject, each.why) for each in operator_log.newest(5)]
    assert output == [
        ("bob", "resume", "channel sms", "mended"),
        ("ada", "pause", "channel sms", "a bad text"),
    ]


def test_the_command_has_the_words_of_the_others() -> None:
    assert command("list").splitlines() == ["sms  running", "email  running", "push  running"]
    output = command("pause", "push", "--reason", "a bad text", "--by", "ada")
    assert output == "push is paused; 0 attempts still run.\n"
    assert paused() == ["push"]
    assert command("list").splitlines()[2].endswith("by ada: a bad text")
    assert command("resume", "push", "--by", "ada", "--reason", "mended") == "push is resumed.\n"
    assert paused() == []
    with pytest.raises(CommandError, match="There is no channel 'fax'"):
        command("pause", "fax", "--reason", "x")
    with pytest.raises(CommandError, match="--reason"):
        command("pause", "sms")


def test_a_channel_that_there_is_not() -> None:
    with pytest.raises(UnknownChannel):
        pause("fax")
    assert not OperatorAction.objects.exists()
