"""The grammar of templates: `{{`, spaces, `.Name`, spaces, `}}`. Nothing else begins with `{{`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["MissingVariable", "TemplateError", "TooLong", "check_template", "rendered"]

# Every pair of opening braces; the group is there if a name follows as it must.
_OPENING = re.compile(r"\{\{(?: *\.([A-Za-z_][A-Za-z0-9_]*) *\}\})?")
_SHOWN = 20  # characters of what is wrong

# Text and names by turns: text, name, text, name, text.
Parts = tuple[str, ...]


class TemplateError(ValueError):
    """This is no template; the message says where and why."""


class MissingVariable(LookupError):
    """A name of the template has no value; the argument is the name."""


class TooLong(ValueError):
    """What comes of the template is longer than it may be; the message says how long."""


def check_template(body: str) -> None:
    """Raises TemplateError for what could not be rendered."""
    _parts(body)


def rendered(body: str, variables: Mapping[str, str], *, at_most: int) -> str:
    """The template's text with these values in it; a value is not looked into.

    Raises MissingVariable, and TooLong beyond `at_most` characters: before it is put together, because
    a few kilobytes of names could otherwise become gigabytes.
    """
    parts = _parts(body)
    texts: list[str] = []
    length = 0
    for place, part in enumerate(parts):
        text = part if place % 2 == 0 else variables.get(part)
        if text is None:
            raise MissingVariable(part)
        length += len(text)
        texts.append(text)
    if length > at_most:
        raise TooLong(f"Render to {length} characters; at most {at_most} are allowed.")
    return "".join(texts)


@lru_cache(maxsize=256)
def _parts(body: str) -> Parts:
    parts: list[str] = []
    end = 0
    for match in _OPENING.finditer(body):
        if match[1] is None:
            at = match.start()
            raise TemplateError(
                f"Must have a name like {{{{.Name}}}} at character {at + 1}, not"
                f" {body[at : at + _SHOWN]!r}."
            )
        parts += [body[end : match.start()], match[1]]
        end = match.end()
    return (*parts, body[end:])
