"""What the environment of a process under chaos says."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["clock_seconds", "directory", "mutants", "second_handler"]


def directory() -> Path:
    """Where switches and barriers are files."""
    return Path(os.environ.get("CHAOS_DIRECTORY", "/nonexistent"))


def mutants() -> list[str]:
    """Guards of mutants.py that are broken in this process."""
    return [name for name in os.environ.get("CHAOS_MUTANTS", "").split(",") if name]


def second_handler() -> str:
    """Where the handler that is added under load starts (`now`, `earliest`); empty: there is none."""
    return os.environ.get("CHAOS_SECOND_HANDLER", "")


def clock_seconds() -> float:
    """How far this process's wall clock is ahead of the machine's; negative: behind."""
    return float(os.environ.get("CHAOS_CLOCK_SECONDS", "0"))
