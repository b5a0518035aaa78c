"""What the commands read and write alike."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence

from django.core.management.base import CommandError

from outbox import conf
from outbox.declaration import Route

__all__ = ["positive", "routes_named", "spelt_out"]


def positive(text: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def spelt_out(text: str) -> str:
    """Text of another producer may move a terminal's cursor or colour it: such characters are spelt
    out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def routes_named(names: Sequence[str] | None) -> list[Route]:
    """The routes of these handlers; of all where none is named. Raises CommandError."""
    try:
        return [conf.route_named(name) for name in names] if names else list(conf.routes())
    except LookupError as error:
        raise CommandError(str(error)) from error
