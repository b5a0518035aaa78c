"""Lists, counts and figures."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from notifications import services, upkeep
from notifications.models import Attempt, ChannelFigures, Notification, Status, StatusChange
from notifications.queries import (
    Filter,
    Owner,
    attempts_in_words,
    batch_in_words,
    channel_figures,
    cursor_of,
    cursor_to_text,
    notifications_page,
    page_statement,
)
from notifications.tests.samples import (
    EMAIL,
    EVERYBODY,
    SMS,
    accept,
    accept_batch,
    set_status,
    somebody_waits,
)
from restapi.tests.sessions import other_session

SHOP = Owner("shop", sees_all=False)
CHANNELS = ["email", "push", "sms"]


ALL = Filter()


def ids(narrowed: Filter = ALL, owner: Owner = SHOP, *, limit: int = 100) -> list[str]:
    page = notifications_page(owner, narrowed, limit=limit)
    return [json.loads(words)["id"] for words in page.words]


@pytest.mark.django_db
def test_a_list_is_narrowed() -> None:
    batch = accept_batch(SMS, EMAIL)
    sms, email = (each.id for each in batch.notifications)
    [alone] = [each.id for each in accept({**SMS, "recipient": "+905000000001"})]
    [others] = [each.id for each in accept(SMS, caller="bank")]
    set_status([email], Status.DELIVERED)
    assert ids() == [alone, email, sms]
    assert ids(owner=EVERYBODY) == [others, alone, email, sms]
    assert ids(Filter(channel="email")) == [email]
    assert ids(Filter(status="delivered")) == [email]
    assert ids(Filter(recipient="+905000000000")) == [sms]
    assert ids(Filter(recipient="+90500000000")) == []
    assert ids(Filter(batch_id=UUID(batch.id))) == [email, sms]
    assert ids(Filter(batch_id=UUID(batch.id), status="pending", channel="sms")) == [sms]


@pytest.mark.django_db
def test_dates_are_those_of_the_ids() -> None:
    """From included, to not; to the microsecond, though ids hold milliseconds."""
    [accepted] = accept(SMS)
    at = Notification.objects.get().created_at
    tick = timedelta(microseconds=1)
    assert ids(Filter(date_from=at)) == ids(Filter(date_to=at + tick)) == [accepted.id]
    assert ids(Filter(date_from=at + tick)) == ids(Filter(date_to=at)) == []
    assert ids(Filter(date_from=at - tick, date_to=at + tick)) == [accepted.id]
    assert ids(Filter(date_from=at.replace(year=1), date_to=at.replace(year=9999))) == [accepted.id]


@pytest.mark.django_db
def test_pages_neither_repeat_nor_skip() -> None:
    expected = [each.id for each in reversed(accept(*[SMS] * 7))]
    seen: list[str] = []
    after = None
    while True:
        page = notifications_page(SHOP, Filter(), limit=3, after=after)
        seen += [json.loads(words)["id"] for words in page.words]
        accept(SMS)
        after = page.next
        if after is None:
            break
        assert cursor_of(cursor_to_text(after)) == after
    assert seen == expected


@given(st.text(max_size=30) | st.uuids().map(cursor_to_text))
def test_a_cursor_is_read_in_one_way(text: str) -> None:
    try:
        id_ = cursor_of(text)
    except ValueError:
        return
    assert cursor_to_text(id_) == text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("narrowed", "index"),
    [
        (Filter(), "notifications_of_caller"),
        (Filter(recipient="+905000000000"), "notifications_to"),
        (Filter(batch_id=UUID(int=1)), "notifications_of_batch"),
    ],
    ids=["all", "recipient", "batch"],
)
def test_lists_have_an_index(narrowed: Filter, index: str) -> None:
    """One that has their order too: nothing is sorted, whatever there is."""
    sql, parameters = page_statement(SHOP, narrowed, limit=20)
    with connection.cursor() as cursor:
        for way in ("seqscan", "sort", "bitmapscan"):
            cursor.execute(f"SET LOCAL enable_{way} = off")
        cursor.execute(f"EXPLAIN {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert f"using {index} on" in plan, plan
    assert "Sort" not in plan, plan


@pytest.mark.django_db
def test_a_batch_counts_what_has_become_of_it() -> None:
    batch = accept_batch(*[SMS] * 7)
    members = [each.id for each in batch.notifications]
    set_status(members[:1], Status.DELIVERED)
    set_status(members[1:3], Status.FAILED)
    set_status(members[3:4], Status.PROCESSING)
    set_status(members[5:6], Status.SCHEDULED)
    services.cancel([UUID(members[4])], owner=SHOP)
    words = json.loads(batch_in_words(UUID(batch.id), SHOP) or "")
    assert {name: words[name] for name in words if name.endswith("count")} == {
        "total_count": 7,
        "pending_count": 3,
        "delivered_count": 1,
        "failed_count": 2,
        "cancelled_count": 1,
    }
    assert batch_in_words(UUID(batch.id), Owner("bank", sees_all=False)) is None


@pytest.mark.django_db
def test_attempts_are_told_in_order() -> None:
    [accepted] = accept(SMS)
    for number in (2, 1, 3):
        outcome = {1: "failed", 2: "held", 3: None}[number]
        Attempt.objects.create(
            notification_id=accepted.id, number=number, provider="webhook", outcome=outcome
        )
    shown = json.loads(attempts_in_words(UUID(accepted.id)))
    assert [(each["attempt"], each["outcome"]) for each in shown] == [
        (1, "failed"),
        (2, "held"),
        (3, None),
    ]
    assert list(shown[0]) == [
        "attempt", "at", "provider", "outcome", "status_code", "latency_ms", "error", "next_attempt_at"
    ]  # fmt: skip


def log(
    channel: str, previous: str, status: str, *, seq: int | None, ms: int | None = None
) -> None:
    StatusChange.objects.create(
        seq=seq, notification_id=UUID(int=1), caller="shop", channel=channel,
        previous=previous, status=status, latency_ms=ms,
    )  # fmt: skip


def figures(channel: str) -> tuple[int, ...]:
    return tuple(channel_figures()[channel])


@pytest.mark.django_db  # in one transaction: no web process of other tests gives the last change its number
def test_figures_are_the_same_before_and_after_folding() -> None:
    assert figures("sms") == (0, 0, 0)
    log("sms", "processing", "delivered", seq=1, ms=40)
    log("sms", "processing", "failed", seq=2)
    log("email", "processing", "delivered", seq=3, ms=7)
    log("sms", "failed", "pending", seq=4)
    log("sms", "processing", "delivered", seq=None, ms=60)
    assert upkeep.fold_figures() == 4
    assert (figures("sms"), figures("email"), figures("push")) == (
        (2, 0, 100),
        (1, 0, 7),
        (0, 0, 0),
    )
    StatusChange.objects.filter(seq=None).update(seq=5)
    assert upkeep.fold_figures() == 1
    assert upkeep.fold_figures() == 0
    assert ChannelFigures.objects.get(channel="sms").delivered == 2
    assert (figures("sms"), figures("email")) == ((2, 0, 100), (1, 0, 7))


@pytest.mark.django_db(transaction=True)
def test_two_that_fold_at_once_count_once() -> None:
    """The second reads the log before the first has committed, and writes behind it."""
    log("sms", "processing", "delivered", seq=1, ms=40)
    upkeep.fold_figures()
    log("sms", "processing", "delivered", seq=2, ms=40)
    with other_session() as other, ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert upkeep.fold_figures() == 1
            again = pool.submit(lambda: other.execute(upkeep._FOLD, (9, CHANNELS)).fetchone())
            assert settles(somebody_waits)
        assert again.result(timeout=PATIENCE) == (0,)
    assert figures("sms") == (2, 0, 80)
