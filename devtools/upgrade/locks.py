"""What a migration's SQL does to a table that may be large while everybody works on it.

A statement is a hazard where it holds a lock that keeps writers or readers away for as long as it
takes to read, build or write a whole table. Locks that are held for a moment are none: the session's
lock_timeout ends a wait for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Hazard", "hazards"]

NAME = r'(?:ONLY\s+)?"?(?P<table>\w+)"?'
UNSEEN = "THIS OPERATION CANNOT BE WRITTEN AS SQL"
CREATED = re.compile(rf"CREATE (?:UNLOGGED |TEMP(?:ORARY)? )?TABLE (?:IF NOT EXISTS )?{NAME}", re.I)
INDEX = re.compile(
    rf'CREATE (?:UNIQUE )?INDEX (?P<online>CONCURRENTLY )?.*? ?\bON {NAME}|REINDEX (?P<again>(?!.*CONCURRENTLY)).*?"?(?P<of>\w+)"?$',
    re.I,
)
ALTER = re.compile(rf"ALTER TABLE (?:IF EXISTS )?{NAME} (?P<what>.*)", re.I)
WHOLE = re.compile(
    rf"(?P<what>UPDATE|DELETE FROM|LOCK TABLE|LOCK|TRUNCATE TABLE|TRUNCATE|VACUUM FULL|CLUSTER) {NAME}",
    re.I,
)
# Of ALTER TABLE: what reads or writes all rows under its lock.
CHANGES = (
    (re.compile(r'ALTER COLUMN "?\w+"? (?:SET DATA )?TYPE\b', re.I), "changes a column's type"),
    (re.compile(r'ALTER COLUMN "?\w+"? SET NOT NULL', re.I), "SET NOT NULL reads all rows"),
    (
        re.compile(r"ADD COLUMN .*\bDEFAULT\b[^,]*\(", re.I),
        "a default that is computed writes all rows",
    ),
    (
        re.compile(r"ADD COLUMN .*\b(?:GENERATED|SERIAL|BIGSERIAL)\b", re.I),
        "a column that is computed writes all rows",
    ),
    (
        re.compile(r"ADD (?:CONSTRAINT \S+ )?(?:CHECK|FOREIGN KEY)(?!.*NOT VALID)", re.I),
        "a constraint that is not NOT VALID reads all rows",
    ),
    (re.compile(r"ADD COLUMN .*\bREFERENCES\b", re.I), "a foreign key reads all rows"),
    (
        re.compile(
            r"ADD (?:CONSTRAINT \S+ )?(?:UNIQUE|PRIMARY KEY|EXCLUDE)\b(?!.*USING INDEX)", re.I
        ),
        "a constraint without USING INDEX builds an index",
    ),
    (re.compile(r"SET (?:UNLOGGED|LOGGED|TABLESPACE|ACCESS METHOD)", re.I), "writes all rows"),
)


@dataclass(frozen=True, slots=True)
class Hazard:
    """`table` is empty where the SQL cannot be seen."""

    table: str
    what: str


def hazards(statements: Iterable[str]) -> list[Hazard]:
    """Those of one migration, in order; a table that it makes itself is empty, so not one of them."""
    found: list[Hazard] = []
    made: set[str] = set()
    for statement in _single(statements):
        if created := CREATED.match(statement):
            made.add(created["table"])
        else:
            found += [hazard for hazard in _of(statement) if hazard.table not in made]
    return found


def _of(statement: str) -> Iterator[Hazard]:
    if UNSEEN in statement:
        yield Hazard("", "runs Python, whose statements nobody sees here")
    elif (index := INDEX.match(statement)) and not index["online"]:
        yield Hazard(index["table"] or index["of"], "builds an index, not CONCURRENTLY")
    elif alter := ALTER.match(statement):
        for pattern, what in CHANGES:
            if pattern.search(alter["what"]):
                yield Hazard(alter["table"], what)
    # Also inside a block of PL/pgSQL.
    for whole in WHOLE.finditer(statement):
        if not statement.upper().startswith(("CREATE ", "ALTER ")):
            yield Hazard(whole["table"], f"{whole['what'].upper()} of a whole table")


def _single(statements: Iterable[str]) -> Iterator[str]:
    """One statement each, on one line, without comments. Bodies between $$ stay whole."""
    for text in statements:
        if UNSEEN in text:
            yield text
            continue
        bare = re.sub(r"--[^\n]*", "", text)
        for statement in _split(bare):
            if line := " ".join(statement.split()):
                yield line


def _split(text: str) -> Sequence[str]:
    parts: list[str] = [""]
    for number, piece in enumerate(text.split("$$")):
        if number % 2:
            parts[-1] += f"$${piece}$$"
        else:
            first, *rest = piece.split(";")
            parts[-1] += first
            parts += rest
    return parts
