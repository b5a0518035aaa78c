"""The definition of valid bodies of POST /notifications and its batch. Not by serializers: a batch has
a thousand, and each field of a serializer costs as much as all of this."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rest_framework.exceptions import ValidationError

from notifications.acceptance import NewNotification
from notifications.api.recipients import RECIPIENT_CHECKS
from notifications.keys import body_key
from notifications.models import LENGTHS, Channel, Priority
from outbox.envelope import TraceContext

__all__ = [
    "MOST_IN_BATCH",
    "Asking",
    "moment_of",
    "read_batch",
    "read_notification",
    "text_error",
    "variables_error",
]

MOST_IN_BATCH = 1000
MOST_ERRORS = 100  # entries of a batch whose errors are answered
LONGEST_KEY = 255
MOST_VARIABLES = 100
LONGEST_VARIABLE = 10_000

_REQUIRED = "This field is required."
_NOT_TEXT = "Must be a string."
_BLANK = "May not be blank."
_MOMENT = "Must be a time with its zone, like 2026-03-11T22:00:00Z."
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CHANNELS, _PRIORITIES = tuple(Channel.values), tuple(Priority.values)

Errors = dict[str, Any]


class Asking(msgspec.Struct, kw_only=True):
    """What is the same for all notifications of a request."""

    caller: str
    sees_all: bool
    trace: TraceContext
    now: datetime


def read_batch(body: object, asking: Asking) -> list[NewNotification]:
    """The notifications of a batch. Raises ValidationError, which names each bad one by its index."""
    if not isinstance(body, dict):
        raise ValidationError("The body must be a JSON object.")
    items = body.get("notifications")
    if not isinstance(items, list):
        raise ValidationError(
            {"notifications": [_REQUIRED if items is None else "Must be an array."]}
        )
    if not 1 <= len(items) <= MOST_IN_BATCH:
        raise ValidationError({"notifications": [f"Must have 1 to {MOST_IN_BATCH} entries."]})
    read: list[NewNotification] = []
    errors: Errors = {}
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        found = _read(item, asking)
        if isinstance(found, dict):
            errors[str(index)] = found
            if len(errors) == MOST_ERRORS:
                break
            continue
        if found.key is not None:
            first = seen.setdefault(found.key.id, index)
            if first != index:
                errors[str(index)] = {
                    "idempotency_key": [f"Must be unique in the batch; entry {first} has the same."]
                }
        read.append(found)
    if errors:
        raise ValidationError({"notifications": errors})
    return read


def read_notification(body: object, asking: Asking) -> NewNotification:
    """The notification that a body asks for. Raises ValidationError."""
    found = _read(body, asking)
    if isinstance(found, dict):
        raise ValidationError(found)
    return found


def _read(body: object, asking: Asking) -> NewNotification | Errors:
    """The notification, or field -> what is wrong with it."""
    if not isinstance(body, dict):
        return {"non_field_errors": ["The body must be a JSON object."]}
    errors: Errors = {}
    channel = _choice(body, "channel", _CHANNELS, "", errors)
    priority = _choice(body, "priority", _PRIORITIES, Priority.NORMAL.value, errors)
    recipient = _recipient(body, channel, errors)
    template_id = _uuid(body, "template_id", errors)
    content = body.get("content")
    wrong_content = _content_error(content, channel)
    if wrong_content is not None and template_id is None and "template_id" not in errors:
        errors["content"] = [wrong_content]
    variables = _variables(body, errors)
    key = body.get("idempotency_key")
    if key is not None:
        _note(errors, "idempotency_key", text_error(key, at_most=LONGEST_KEY))
    scheduled_at = _time(body, "scheduled_at", errors)
    expires_at = _time(body, "expires_at", errors)
    if errors:
        return errors
    stale = _stale(scheduled_at, expires_at, asking.now)
    if stale and key is None:
        return stale
    given = (
        recipient,
        channel,
        priority,
        content if content is None or wrong_content is None else {"unfit": ascii(content)},
        scheduled_at,
        expires_at,
        template_id,
        variables,
    )
    return NewNotification(
        recipient=recipient,
        channel=channel,
        priority=priority,
        content=content if wrong_content is None else None,
        unfit_content=wrong_content if content is not None else None,
        scheduled_at=scheduled_at,
        expires_at=expires_at,
        template_id=template_id,
        variables=variables,
        key=None if key is None else body_key(key, caller=asking.caller, fields=given),
        caller=asking.caller,
        sees_all=asking.sees_all,
        stale=stale,
        trace=asking.trace,
    )


def _note(errors: Errors, field: str, message: str | None) -> None:
    if message is not None:
        errors[field] = [message]


def _text(body: Mapping[str, Any], field: str, errors: Errors) -> str | None:
    """The text of a field that may be left out; None also for what is none."""
    value = body.get(field)
    if value is None or isinstance(value, str):
        return value
    errors[field] = [_NOT_TEXT]
    return None


def _choice(
    body: Mapping[str, Any], field: str, choices: Sequence[str], default: str, errors: Errors
) -> str:
    value = _text(body, field, errors)
    if value is None:
        if not default:
            errors.setdefault(field, [_REQUIRED])
        return default
    if value not in choices:
        errors[field] = [f"Must be one of {', '.join(choices)}."]
    return value


def _recipient(body: Mapping[str, Any], channel: str, errors: Errors) -> str:
    """Without a channel that is known nobody can say more than that it is a text."""
    value = body.get("recipient")
    if value is None:
        errors["recipient"] = [_REQUIRED]
        return ""
    error = text_error(value)
    if error is None and channel in RECIPIENT_CHECKS:
        error = RECIPIENT_CHECKS[channel](value)
    _note(errors, "recipient", error)
    return str(value)


def _content_error(value: object, channel: str) -> str | None:
    """What is wrong with a content; None: nothing. With a template that counts only if it is used."""
    if value is None:
        return _REQUIRED
    return text_error(value, at_most=LENGTHS.get(channel))


def _variables(body: Mapping[str, Any], errors: Errors) -> dict[str, str] | None:
    value = body.get("template_variables")
    if value is None:
        return None
    error = variables_error(value)
    _note(errors, "template_variables", error)
    return value  # type: ignore[no-any-return]


def variables_error(value: object) -> str | None:
    """What is wrong with the variables of a template; None: nothing."""
    if not isinstance(value, dict):
        return "Must be an object of strings."
    if len(value) > MOST_VARIABLES:
        return f"Must have at most {MOST_VARIABLES} entries."
    for name, text in value.items():
        error = text_error(text, at_most=LONGEST_VARIABLE, blank=True)
        if error is not None:
            return f"{_shown(name)}: {error}"
        if text_error(name, at_most=LONGEST_KEY, blank=True) is not None:
            return f"{_shown(name)}: is no name of a variable."
    return None


def _shown(text: str) -> str:
    return text[:40].encode("ascii", "backslashreplace").decode()


def _uuid(body: Mapping[str, Any], field: str, errors: Errors) -> str | None:
    value = _text(body, field, errors)
    if value is not None and not _UUID.fullmatch(value):
        errors[field] = ["Must be a UUID."]
    return value and value.lower()


def text_error(value: object, *, at_most: int | None = None, blank: bool = False) -> str | None:
    """What is wrong with a text; None: nothing. PostgreSQL stores no NUL, and UTF-8 has no surrogates."""
    if not isinstance(value, str):
        return _NOT_TEXT
    if at_most is not None and len(value) > at_most:
        return f"Must have at most {at_most} characters."
    if not blank and not value.strip():
        return _BLANK
    if "\0" in value:
        return "Must have no null characters."
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "Must have no surrogates."
    return None


# -- times


def _time(body: Mapping[str, Any], field: str, errors: Errors) -> datetime | None:
    value = _text(body, field, errors)
    if value is None:
        return None
    moment = moment_of(value)
    if moment is None:
        errors[field] = [_MOMENT]
    return moment


def moment_of(text: str) -> datetime | None:
    """A time of RFC 3339, in UTC; None if it is none, or has no zone or a second 60."""
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or beyond the years there are
        return None


def _stale(
    scheduled_at: datetime | None, expires_at: datetime | None, now: datetime
) -> Errors | None:
    """What is wrong with the times as of now."""
    errors: Errors = {}
    for field, moment in (("scheduled_at", scheduled_at), ("expires_at", expires_at)):
        if moment is not None and moment <= now:
            errors[field] = ["Must be in the future."]
        elif moment is not None and moment > _a_year_after(now):
            errors[field] = ["Must be at most a year ahead."]
    if not errors and scheduled_at and expires_at and expires_at <= scheduled_at:
        errors["expires_at"] = ["Must be after scheduled_at."]
    return errors or None


def _a_year_after(now: datetime) -> datetime:
    try:
        return now.replace(year=now.year + 1)
    except ValueError:  # the 29th of February
        return now.replace(year=now.year + 1, month=3, day=1)
