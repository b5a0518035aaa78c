"""Importing follows from a file, which is read twice: first to check all of it, then to store it, a
piece a transaction. A pair that is followed already is left as it is, so a file can be imported
again."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from django.db import connection

from feeds import services
from feeds.events import is_user_id
from feeds.services import Pair
from outbox.database.unit_of_work import unit_of_work

__all__ = ["BadFile", "Imported", "count_follows", "import_follows"]

PIECE = 5_000
LINES_SHOWN = 10
HEADER = ["follower_id", "followee_id"]


class Imported(msgspec.Struct, kw_only=True):
    """How far the import is. `new` are follows that were not there before."""

    lines: int = 0
    new: int = 0


class BadFile(ValueError):
    """The file has lines that are no follows; nothing was stored. `lines` are the first of them, in
    words."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def count_follows(path: Path) -> int:
    """How many follows a file has. Raises BadFile, OSError."""
    count = 0
    bad: list[str] = []
    for number, row in _rows(path):
        count += 1
        if complaint := _complaint(row):
            bad.append(f"line {number}: {complaint}")
            if len(bad) == LINES_SHOWN:
                break
    if bad:
        raise BadFile(bad)
    return count


def import_follows(
    path: Path, *, piece: int = PIECE, on_piece: Callable[[Imported], None] = lambda _: None
) -> Imported:
    """Store the follows of a file that `count_follows` has found good; not in a transaction.

    Raises NotStored and OutcomeUnknown; the pieces before are stored, and the file can be given
    again.
    """
    imported = Imported()
    rows = _rows(path)
    while lines := list(itertools.islice(rows, piece)):
        pairs = [Pair(*row) for _, row in lines]
        imported.new += _store(pairs)
        imported.lines += len(lines)
        on_piece(imported)
    return imported


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of the file with their numbers, without a header and empty ones."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        try:
            for row in lines:
                if row and not (lines.line_num == 1 and row == HEADER):
                    yield lines.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadFile([f"line {lines.line_num + 1}: {error}"]) from error


def _complaint(row: list[str]) -> str:
    """What is wrong with a line; "" if it is right."""
    if len(row) != len(HEADER):
        return f"has {len(row)} fields, not follower_id,followee_id"
    for text in row:
        if not is_user_id(text):
            return f"{text[:40]!r} is not a user id"
    return "a user cannot follow themselves" if row[0] == row[1] else ""


def _store(pairs: Sequence[Pair]) -> int:
    with unit_of_work(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE imported_follows (follower_id text, followee_id text)"
            " ON COMMIT DROP"
        )
        with cursor.copy("COPY imported_follows FROM STDIN") as copy:
            for pair in dict.fromkeys(pairs):
                copy.write_row(pair)
        return services.begin_follows_of("imported_follows")
