"""`make logs`: the files of all servers and processes as one, by time, for people to read.

The files stay as they were written, ours as JSON. A server's lines are ordered by the time they
carry; a line that carries none stays behind the one before it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devtools.localstack.environment import read_environment
from devtools.localstack.errors import LocalStackError
from devtools.localstack.state import StackState
from eventsite.telemetry import log_lines

__all__ = ["LINES", "LogEntry", "merged", "read_entries", "show_logs", "shown"]

LINES = 200
BYTES_PER_LINE = 1024  # a guess: a file is read from so many before its end
POLL = 0.2  # seconds
HELD_BACK = 0.3  # seconds: what was written so long ago has been read from every file

ANSI = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = r"\d\d:\d\d:\d\d\.\d+"
POSTGRES = re.compile(
    rf"(?P<at>\d{{4}}-\d\d-\d\d {SECONDS}) UTC \[\d+\] (?P<who>.*?) ?(?P<level>[A-Z]+\d?):  (?P<text>.*)"
)
KAFKA = re.compile(rf"(?P<at>\d{{4}}-\d\d-\d\dT{SECONDS}) \[.*?\] (?P<level>[A-Z]+) (?P<text>.*)")
TANSU = re.compile(rf"(?P<at>\d{{4}}-\d\d-\d\dT{SECONDS})Z\s+(?P<level>[A-Z]+) (?P<text>.*)")
REDIS = re.compile(
    rf"\d+:[A-Z] (?P<at>\d\d [A-Z][a-z]{{2}} \d{{4}} {SECONDS}) (?P<level>[-.*#]) (?P<text>.*)"
)
REDIS_TIME = "%d %b %Y %H:%M:%S.%f"
LEVELS = {
    **dict.fromkeys(("WARNING", "WARN"), "warning"),
    **dict.fromkeys(("ERROR", "FATAL", "PANIC"), "error"),
}


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of a log. `at` is None where it carries no time; `order` is that of the line before."""

    source: str
    order: float  # seconds since the epoch
    at: datetime | None
    level: str
    text: str
    raw: str
    fields: Mapping[str, Any] | None = None  # of one of our JSON entries


def show_logs(
    state: StackState, names: Sequence[str], *, follow: bool, lines: int = LINES, raw: bool = False
) -> int:
    """Print the last lines of the named logs (none: of all), and with `follow` what comes.

    `raw`: as they stand in the files. Raises LocalStackError when there is no such log.
    """
    known = {path.stem: path for path in sorted(state.logs.glob("*.log"))}
    if missing := [name for name in names if name not in known]:
        there = ", ".join(known) or "none"
        raise LocalStackError(f"There is no log of {', '.join(missing)}. There are: {there}.")
    chosen = {name: known[name] for name in names or known}
    colour = sys.stdout.isatty() and not read_environment().no_color
    form: Callable[[LogEntry], str] = _raw if raw else lambda entry: shown(entry, colour=colour)
    try:
        followed = [_Followed(name, path, lines) for name, path in chosen.items()]
        _print(map(form, merged(one.first for one in followed)[-lines:]))
        if follow:
            _follow(followed, form)
    except BrokenPipeError:  # `make logs | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def merged(files: Iterable[Sequence[LogEntry]]) -> list[LogEntry]:
    """By time; lines of one file keep their order."""
    return sorted((entry for entries in files for entry in entries), key=lambda entry: entry.order)


def shown(entry: LogEntry, *, colour: bool) -> str:
    if entry.fields is not None:
        return log_lines.of_entry(entry.fields, source=entry.source, colour=colour)
    return log_lines.line(
        at=entry.at, source=entry.source, level=entry.level, text=entry.text, colour=colour
    )


def read_entries(source: str, lines: Iterable[str], before: float) -> list[LogEntry]:
    """What these lines say. `before`: the time, in seconds since the epoch, of the line in front of
    them."""
    entries = []
    for raw in lines:
        entry = _entry(source, raw, before)
        before = entry.order
        entries.append(entry)
    return entries


class _Followed:
    """A file: the end of what it holds, and then what is added to it."""

    def __init__(self, name: str, path: Path, lines: int) -> None:
        self._name = name
        self._path = path
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = file.seek(max(0, size - lines * BYTES_PER_LINE))
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset = begin + len(whole) + len(newline)
        text = whole.decode(errors="replace").splitlines()
        if begin:
            del text[0]  # a part of a line
        # In front of the first line with a time stands what came with it; a file without any
        # was complete when it was last written to.
        found = read_entries(name, text, path.stat().st_mtime)
        first_time = next((entry.order for entry in found if entry.at), path.stat().st_mtime)
        self.first = read_entries(name, text[-lines:], first_time)
        self._last = self.first[-1].order if self.first else first_time

    def added(self) -> list[LogEntry]:
        """Whole lines that have come since."""
        with suppress(OSError), self._path.open("rb") as file:
            if self._path.stat().st_size < self._offset:
                self._offset = 0  # rotated
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            text = whole.decode(errors="replace").splitlines()
            entries = read_entries(self._name, text, self._last)
            if entries:
                self._last = entries[-1].order
            return entries
        return []


def _follow(files: Sequence[_Followed], form: Callable[[LogEntry], str]) -> None:
    waiting: list[LogEntry] = []
    while True:
        now = time.time()
        waiting = merged([waiting, *(file.added() for file in files)])
        due = [entry for entry in waiting if entry.order <= now - HELD_BACK]
        waiting = waiting[len(due) :]
        _print(map(form, due))
        time.sleep(POLL)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _raw(entry: LogEntry) -> str:
    return entry.raw


def _entry(source: str, raw: str, before: float) -> LogEntry:
    if raw.startswith("{") and (fields := _json(raw)):
        at = _moment(str(fields.get("at", "")))
        order = at.timestamp() if at else before
        return LogEntry(source, order, at, "info", "", raw, fields)
    text = ANSI.sub("", raw)
    for pattern in (POSTGRES, KAFKA, TANSU, REDIS):
        found = pattern.fullmatch(text)
        if found and (at := _moment(found["at"])):
            level = LEVELS.get(found["level"], "info")
            who = found.groupdict().get("who") or ""
            words = f"{who}: {found['text']}" if who else found["text"]
            return LogEntry(source, at.timestamp(), at, level, words, raw)
    return LogEntry(source, before, None, "info", text, raw)


def _json(raw: str) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _moment(text: str) -> datetime | None:
    """Every embedded server is configured to write UTC."""
    with suppress(ValueError):
        return datetime.strptime(f"{text}+0000", f"{REDIS_TIME}%z")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
