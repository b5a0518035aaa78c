"""A log entry as one line for people, with ids short: `make logs` shows files this way, and a process
writes this way with LOG_FORMAT=console."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["line", "of_entry"]

NAME_WIDTH = 14  # worker-effects
LEVELS = {"debug": "debug", "info": "", "warning": "warn", "error": "ERROR", "critical": "FATAL"}
LEVEL_WIDTH = 5
LIST_LENGTH = 3  # how many values of a list are shown
ID_LENGTH = 8  # the end of an id: its beginning is a time, which ids of one second share
ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{16}")
PLAIN = re.compile(r"[^\s\"'=]+")
# In the line already, or useless to a reader.
HIDDEN = frozenset({"at", "level", "event", "service", "logger", "span_id", "exception"})
# What a request's line says in its first words.
REQUEST = frozenset({"method", "path", "route", "status", "duration_ms"})

DIM, RED, YELLOW, RESET = "\033[2m", "\033[1;31m", "\033[33m", "\033[0m"
LEVEL_COLOURS = {"warning": YELLOW, "error": RED, "critical": RED}
NAME_COLOURS = ("\033[36m", "\033[32m", "\033[35m", "\033[34m", "\033[96m", "\033[92m", "\033[95m")


def of_entry(entry: Mapping[str, Any], *, source: str, colour: bool) -> str:
    """An entry of our JSON logs. Of a traceback it has the last line."""
    hidden = HIDDEN
    text = str(entry.get("event", ""))
    if text == "request" and entry.keys() >= REQUEST:
        text = "{method} {path} {status} {duration_ms:.1f} ms".format_map(entry)
        hidden |= REQUEST
        if entry.get("caller") == "anonymous":
            hidden |= {"caller"}
    fields = {name: _value(value) for name, value in entry.items() if name not in hidden}
    if exception := str(entry.get("exception", "")).strip():
        fields["exception"] = _value(exception.splitlines()[-1])
    return line(
        at=_moment(entry.get("at")),
        source=source,
        level=str(entry.get("level", "info")),
        text=text,
        fields=fields,
        colour=colour,
    )


def line(
    *,
    at: datetime | None,
    source: str,
    text: str,
    level: str = "info",
    fields: Mapping[str, str] | None = None,
    colour: bool,
) -> str:
    """One line without its end. The time is UTC, with the date unless that is today."""
    name_colour = NAME_COLOURS[zlib.crc32(source.encode()) % len(NAME_COLOURS)]
    level_colour = LEVEL_COLOURS.get(level, "")

    def paint(text: str, in_colour: str) -> str:
        return f"{in_colour}{text}{RESET}" if colour and in_colour else text

    parts = [
        paint(_clock(at), DIM),
        paint(f"{source:<{NAME_WIDTH}}", name_colour),
        paint(f"{LEVELS.get(level, level):<{LEVEL_WIDTH}}", level_colour),
        paint(_one_line(text), level_colour),
        *(f"{paint(f'{name}=', DIM)}{value}" for name, value in (fields or {}).items()),
    ]
    return " ".join(parts).rstrip()


def _clock(at: datetime | None) -> str:
    if at is None:
        return " " * len("00:00:00.000")
    clock = at.strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03}"
    return clock if at.date() == datetime.now(UTC).date() else f"{at:%Y-%m-%d} {clock}"


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def _value(value: object) -> str:
    match value:
        case str() if ID.fullmatch(value):
            return f"…{value[-ID_LENGTH:]}"
        case str():
            plain = PLAIN.fullmatch(value) and value.isprintable()
            return value if plain else _one_line(json.dumps(value, ensure_ascii=False))
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            shown = ",".join(map(_value, value[:LIST_LENGTH]))
            return shown + (f",+{len(value) - LIST_LENGTH}" if len(value) > LIST_LENGTH else "")
        case Mapping():
            return _one_line(json.dumps(value, ensure_ascii=False, default=str))
        case _:
            return str(value)


def _one_line(text: str) -> str:
    """Line ends and other control characters, escape sequences among them, as they are spelt."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
