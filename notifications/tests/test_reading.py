"""What is valid: every field wrong in every way, alone and in a batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from rest_framework.exceptions import ValidationError

from notifications.api.reading import (
    MOST_IN_BATCH,
    Asking,
    moment_of,
    read_batch,
    read_notification,
)
from notifications.tests.samples import EMAIL, PUSH, SMS, asking
from restapi.tests.bodies import anything

NOW = datetime(2026, 3, 11, 22, tzinfo=UTC)
NOT_OBJECTS: tuple[Any, ...] = (1, "x", [], ["a"])
NOT_TEXTS: tuple[Any, ...] = (1, 1.5, True, [], {}, ["x"])
WRONG: list[tuple[dict[str, Any], str]] = [
    *(({field: value}, field)
      for field in ("recipient", "channel", "content", "priority", "idempotency_key",
                    "scheduled_at", "expires_at", "template_id")
      for value in (*NOT_TEXTS, "", " ", "x\0y", "\ud800")),
    *(({field: None}, field) for field in ("recipient", "channel", "content")),
    ({"content": "x" * 161}, "content"),
    *(({"channel": channel, "recipient": " " * length}, "recipient")
      for channel in ("sms", "email", "push") for length in (0, 1)),
    ({"channel": "SMS"}, "channel"),
    ({"priority": "urgent"}, "priority"),
    ({"idempotency_key": "x" * 256}, "idempotency_key"),
    ({"template_id": "0198f7a45c1e7b3a9d2f4e6a8c0b1d3f"}, "template_id"),
    ({"template_id": "null"}, "template_id"),
    *(({"template_variables": value}, "template_variables")
      for value in (*NOT_OBJECTS, {"a": 1}, {"a": None}, {"a": {}}, {"a": "\0"}, {"\0": "a"},
                    {"a": "\ud800"}, {"\ud800": "a"}, {"a": "x" * 10_001}, {"x" * 256: "a"},
                    {str(number): "" for number in range(101)})),
    *(({field: value}, field)
      for field in ("scheduled_at", "expires_at")
      for value in (
          "2026-03-11T22:00:00Z", "2026-03-11T21:59:59Z", "2026-03-12T00:00:00+02:00",
          "2026-03-12T22:00:00", "2026-03-12T22:00:60Z", "2026-03-12T24:00:00Z", "2026-02-30T00:00:00Z",
          "2026-03-12", "2026-03-12 22:00:00Z", "20260312T220000Z", "9999-12-31T23:59:59Z",
          "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2027-03-11T22:00:00.001Z",
          "1773266400", "tomorrow", "2026-03-12T22:00:00+24:00", "2026-03-12T22:00Z",
      )),
]  # fmt: skip


def at(now: datetime) -> Asking:
    found = asking()
    found.now = now
    return found


@pytest.mark.parametrize(
    ("change", "field"), WRONG, ids=[f"{index}-{field}" for index, (_, field) in enumerate(WRONG)]
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_notification(SMS | change, at(NOW))
    alone: Any = refused.value.detail
    assert list(alone) == [field]
    with pytest.raises(ValidationError) as refused:
        read_batch({"notifications": [SMS, SMS | change]}, at(NOW))
    assert refused.value.detail == {"notifications": {"1": alone}}


@pytest.mark.parametrize("missing", ["recipient", "channel", "content"])
def test_a_missing_field_is_named(missing: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_notification({name: SMS[name] for name in SMS if name != missing}, at(NOW))
    assert list(refused.value.detail) == [missing]


@pytest.mark.parametrize("body", [None, 1, "x", [], [SMS]])
def test_a_body_that_is_no_object(body: object) -> None:
    for read in (read_notification, read_batch):
        with pytest.raises(ValidationError):
            read(body, at(NOW))


@pytest.mark.parametrize(
    ("body", "length"), [(SMS, 160), (EMAIL, 10_000), (PUSH, 4_096)], ids=["sms", "email", "push"]
)
def test_contents_have_their_lengths(body: dict[str, Any], length: int) -> None:
    """In characters, whatever they take in bytes."""
    assert read_notification({**body, "content": "é" * length}, at(NOW)).content
    with pytest.raises(ValidationError):
        read_notification({**body, "content": "é" * (length + 1)}, at(NOW))


def test_times_up_to_a_year_ahead() -> None:
    for year in (
        "2027-03-11T22:00:00Z",
        "2026-03-11T22:00:00.000001Z",
        "2026-03-12t01:00:01+03:00",
    ):
        assert read_notification({**SMS, "scheduled_at": year}, at(NOW)).scheduled_at
    leap = datetime(2028, 2, 29, tzinfo=UTC)
    read_notification({**SMS, "expires_at": "2029-03-01T00:00:00Z"}, at(leap))
    with pytest.raises(ValidationError):
        read_notification({**SMS, "expires_at": "2029-03-01T00:00:01Z"}, at(leap))


def test_nothing_expires_before_it_is_sent() -> None:
    soon, later = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
    read_notification(
        {**SMS, "scheduled_at": soon.isoformat(), "expires_at": later.isoformat()}, at(NOW)
    )
    for expires in (soon, soon - timedelta(minutes=1)):
        with pytest.raises(ValidationError) as refused:
            read_notification(
                {**SMS, "scheduled_at": soon.isoformat(), "expires_at": expires.isoformat()},
                at(NOW),
            )
        assert list(refused.value.detail) == ["expires_at"]


def test_a_zone_is_a_zone() -> None:
    assert moment_of("2026-03-11T22:00:00+05:30") == datetime(2026, 3, 11, 16, 30, tzinfo=UTC)
    assert moment_of("2026-03-11T22:00:00.123456789-00:00") is not None


@pytest.mark.parametrize("count", [0, MOST_IN_BATCH + 1])
def test_batches_have_a_size(count: int) -> None:
    with pytest.raises(ValidationError) as refused:
        read_batch({"notifications": [SMS] * count}, at(NOW))
    assert list(refused.value.detail) == ["notifications"]
    assert len(read_batch({"notifications": [SMS] * MOST_IN_BATCH}, at(NOW))) == MOST_IN_BATCH


def test_a_key_twice_in_a_batch_is_named() -> None:
    keyed = {**SMS, "idempotency_key": "k"}
    with pytest.raises(ValidationError) as refused:
        read_batch({"notifications": [keyed, EMAIL, keyed]}, at(NOW))
    detail: Any = refused.value.detail
    assert list(detail["notifications"]) == ["2"]


def test_unknown_fields_are_ignored() -> None:
    assert read_notification({**SMS, "colour": ["red"], "id": 1}, at(NOW)) == read_notification(
        SMS, at(NOW)
    )


@given(anything)
def test_nonsense_is_refused_and_nothing_else_happens(body: object) -> None:
    for read in (read_notification, read_batch):
        with pytest.raises(ValidationError):
            read(body, at(NOW))
