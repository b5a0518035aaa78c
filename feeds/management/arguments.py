"""Types of arguments that the commands of the feeds share."""

from __future__ import annotations

from argparse import ArgumentTypeError

from feeds.events import is_user_id

__all__ = ["positive", "user_id"]


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def user_id(text: str) -> str:
    if not is_user_id(text):
        raise ArgumentTypeError(f"{text!r} is not a user id")
    return text
