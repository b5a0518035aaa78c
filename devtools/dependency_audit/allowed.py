"""The list of weaknesses that were looked at."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import msgspec

__all__ = ["LIST", "Allowed", "ListError", "read_allowed"]

LIST = Path(__file__).with_name("allowed.toml")
LONGEST = timedelta(days=184)


class ListError(Exception):
    """The list cannot be read, or has an entry without an end; the message says which."""


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry: `id` is any name of the weakness, from `since` to `until`, both days included."""

    id: str
    package: str
    reason: str
    since: date
    until: date

    def covers(self, names: Sequence[str], package: str) -> bool:
        """Whether this is the weakness, whatever the day."""
        return self.package == package and self.id in names


class _File(msgspec.Struct, forbid_unknown_fields=True):
    allowed: list[Allowed] = []


def read_allowed(path: Path = LIST) -> Sequence[Allowed]:
    """The entries. Raises ListError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), type=_File).allowed
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ListError(f"{path.name}: {error}") from error
    for entry in found:
        if len(entry.reason.split()) < 3:
            raise ListError(f"{path.name}: {entry.id} needs a reason in words.")
        if not entry.since <= entry.until <= entry.since + LONGEST:
            raise ListError(
                f"{path.name}: {entry.id} ends within {LONGEST.days} days of its beginning."
            )
    return found
