"""How arguments of `generate_load` are read. Each raises ArgumentTypeError with what to write instead."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from contextlib import suppress

from loadtest.thresholds import Threshold

__all__ = ["count", "header", "positive", "seconds", "share", "threshold"]

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)")
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A duration in seconds: 90, 90s, 1.5m, 1h."""
    found = DURATION.fullmatch(text)
    if found is None or not float(found[1]):
        raise ArgumentTypeError(f"{text!r} is not a duration: write 90, 90s, 1.5m or 1h")
    return float(found[1]) * SECONDS[found[2]]


def positive(text: str) -> float:
    """A number above 0."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < 1e6:
            return value
    raise ArgumentTypeError(f"{text!r} is not a number above 0")


def share(text: str) -> float:
    """A number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise ArgumentTypeError(f"{text!r} is not a share: write a number from 0 to 1")


def count(text: str) -> int:
    """A whole number above 0."""
    with suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise ArgumentTypeError(f"{text!r} is not a whole number above 0")


def header(text: str) -> tuple[str, str]:
    """Name and value of an HTTP header."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ArgumentTypeError(f"{text!r} is not a header: write 'Name: value'")
    return name.strip(), value.strip()


def threshold(text: str) -> Threshold:
    """What a run must not cross."""
    try:
        return Threshold.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
