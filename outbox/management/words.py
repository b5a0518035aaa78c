"""What the commands read and write alike."""

from __future__ import annotations

__all__ = ["positive", "spelt_out"]


def positive(text: str) -> int:
    """A whole number from 1. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def spelt_out(text: str) -> str:
    """Text of another producer may move a terminal's cursor or colour it: such characters are spelt
    out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
