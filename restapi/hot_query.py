"""Query parameters of hot paths, sure if each is declared, given once, not empty, and written with
characters that no decoder changes (unreserved in RFC 3986). Everything else is Django's."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ["Parser", "matching", "one_of", "parsed_query", "whole_number"]

# The text of a parameter -> its value. Whatever it raises, Django answers the request. It takes one
# way of writing a value only, so that str(value) is what was written.
Parser = Callable[[str], Any]

MAX_BYTES = 1024  # of a query string
_SURE = re.compile(rb"[\w.~-]+=[\w.~-]+(?:&[\w.~-]+=[\w.~-]+)*")


def parsed_query(query: bytes, parameters: Mapping[str, Parser]) -> Mapping[str, Any] | None:
    """The values by name, in the order of the query string; None: Django answers."""
    if not parameters or len(query) > MAX_BYTES or not _SURE.fullmatch(query):
        return None
    given: dict[str, Any] = {}
    for pair in query.decode().split("&"):
        name, _, text = pair.partition("=")
        parser = parameters.get(name)
        if parser is None or name in given:
            return None
        try:
            given[name] = parser(text)
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            return None
    return given


def whole_number(least: int, most: int) -> Parser:
    """Digits without leading zeros, from `least` to `most`, neither below 0."""
    shape = re.compile(rf"0|[1-9][0-9]{{0,{len(str(most)) - 1}}}")

    def parse(text: str) -> int:
        number = int(text) if shape.fullmatch(text) else -1
        if not least <= number <= most:
            raise ValueError("no such number")
        return number

    return parse


def one_of(words: Collection[str]) -> Parser:
    """One of these words, to the letter."""
    return {str(word): str(word) for word in words}.__getitem__


def matching(pattern: re.Pattern[str]) -> Parser:
    """A text that has this shape from end to end."""

    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError("not of this shape")
        return text

    return parse
