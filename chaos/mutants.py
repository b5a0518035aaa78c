"""Guards broken one at a time."""

from __future__ import annotations


def break_guard(name: str) -> None:
    """Break one guard."""
