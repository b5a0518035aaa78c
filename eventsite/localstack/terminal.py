"""Plain lines to the person at the terminal."""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["complain", "say"]


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
