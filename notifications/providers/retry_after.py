"""The header Retry-After (RFC 9110, 10.2.3): seconds, or a date."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["LONGEST", "SHORTEST", "seconds_to_wait"]

SHORTEST, LONGEST = 1.0, 300.0  # seconds; a provider that says 0 is not asked in a tight loop


def seconds_to_wait(value: str | None, *, date: str | None, now: datetime) -> float | None:
    """Seconds from now, within bounds; None for what is neither a number nor a date.

    `date`: the answer's own Date. A date is compared with it, so that our clock does not matter;
    where it is missing or cannot be read, with `now`.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(max(float(text[:9]), SHORTEST), LONGEST)
    until = _parsed(text)
    if until is None:
        return None
    seconds = (until - (_parsed(date or "") or now)).total_seconds()
    return min(max(seconds, SHORTEST), LONGEST)


def _parsed(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
