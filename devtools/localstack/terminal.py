"""Plain lines to the person at the terminal, and entries for the logs that the stack itself writes."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime

__all__ = ["complain", "log_entry", "say"]


def log_entry(service: str, event: str, level: str = "info", **fields: int | str) -> str:
    """One line of JSON, shaped like those of the processes that the stack starts."""
    entry = {"service": service, "at": datetime.now(UTC).isoformat(), "event": event}
    return json.dumps(entry | {"level": level} | fields)


def say(line: str) -> None:
    """One line to stdout, at once; a closed pipe (`make logs | head`) is no error."""
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def complain(line: str) -> None:
    """One line to stderr: errors, and progress that must not mix with a command's own output."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
