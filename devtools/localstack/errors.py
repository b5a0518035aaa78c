"""What can go wrong, each with a message that says what to do next."""

from __future__ import annotations

from pathlib import Path

__all__ = ["LocalStackError", "NotReady", "StartFailed", "tail"]

TAIL_LINES = 15


class LocalStackError(Exception):
    """The stack cannot do what was asked; the message is for the person at the terminal."""


class NotReady(Exception):
    """A server or process does not answer yet; the message says what it answered."""


class StartFailed(LocalStackError):
    """Something did not start. Carries the end of its log, because the log may be deleted with the state."""

    def __init__(self, name: str, reason: str, log: Path, advice: str = "") -> None:
        parts = [f"{name} did not start: {reason}"]
        if lines := tail(log):
            parts.append(f"Last lines of {log}:\n" + "\n".join(f"  | {line}" for line in lines))
        if advice:
            parts.append(advice)
        super().__init__("\n".join(parts))


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
