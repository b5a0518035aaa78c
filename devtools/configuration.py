"""`python -m devtools.configuration`: write docs/configuration.md from the settings.

Names, defaults and bounds come from `Environment` of eventsite/settings/env.py, the words from
`.env.example`. A test holds the two to each other and the page to both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from eventsite.settings.env import REPOSITORY, Environment

__all__ = ["PAGE", "Variable", "described", "fields", "page", "shown"]

EXAMPLE = REPOSITORY / ".env.example"
PAGE = REPOSITORY / "docs/configuration.md"
A_SECTION = re.compile(r"^# --- (.*)$")
A_VARIABLE = re.compile(r"^# ([A-Z][A-Z_]+)=(\S*)\s*(?:\(([A-Z_]+)\)\s*)?(.*)$")
A_CONTINUATION = re.compile(r"^#\s{5,}(\S.*)$")
INTRODUCTION = """# Configuration

<!-- Made by `make configuration` from eventsite/settings/env.py and .env.example. Change these instead. -->

Every process reads its settings from environment variables, and from a file `.env` at the root of the repository. Nothing
else configures a deployment. A value that cannot be used stops the process at its start, with exit code 1 and a line for
each such variable. An empty variable counts as unset.
"""


class Variable(NamedTuple):
    """A variable as .env.example has it. older: the name that works where ours is unset."""

    section: str
    name: str
    default: str
    older: str
    words: str


def described() -> list[Variable]:
    """The variables of .env.example, in its order."""
    found: list[Variable] = []
    section = ""
    for line in EXAMPLE.read_text().splitlines():
        if heading := A_SECTION.match(line):
            section = heading[1]
        elif variable := A_VARIABLE.match(line):
            found.append(
                Variable(section, variable[1], *(part or "" for part in variable.groups()[1:]))
            )
        elif found and (more := A_CONTINUATION.match(line)):
            last = found[-1]
            found[-1] = last._replace(words=f"{last.words} {more[1]}".strip())
    return found


def fields() -> dict[str, FieldInfo]:
    """Variable -> its field of the settings."""
    return {_names(name, field)[0]: field for name, field in Environment.model_fields.items()}


def _names(name: str, field: FieldInfo) -> list[str]:
    choices = getattr(field.validation_alias, "choices", [name.upper()])
    return [str(choice) for choice in choices]


def shown(value: Any) -> str:
    """A default as it is written into the environment."""
    if value in (None, "", {}):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def _bounds(field: FieldInfo) -> str:
    """What a value must be, beyond its type."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(bound, name):,}"
        for bound in field.metadata
        for name, sign in signs.items()
        if getattr(bound, name, None) is not None
    ]
    kinds = {bool: "`on`, `off`", int: "whole number", float: "number"}
    kind = kinds.get(field.annotation, "") if isinstance(field.annotation, type) else ""
    return " ".join(filter(None, [kind, *bounds]))


def _row(variable: Variable, field: FieldInfo | None) -> str:
    name = f"`{variable.name}`" + (f" (or `{variable.older}`)" if variable.older else "")
    default = shown(field.default) if field else variable.default
    cells = [
        name,
        f"`{default}`" if default else "",
        _bounds(field) if field else "",
        variable.words,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _lines() -> Iterator[str]:
    known, section = fields(), ""
    for variable in described():
        if variable.section != section:
            section = variable.section
            title, _, note = section.partition(": ")
            yield f"\n## {title}\n"
            if note:
                yield f"{_sentence(note)}\n"
            yield "| variable | default | values | meaning |\n|---|---|---|---|"
        yield _row(variable, known.get(variable.name))


def _sentence(note: str) -> str:
    text = re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", note)
    return text[0].upper() + text[1:]


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "\n".join(_lines()) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.relative_to(REPOSITORY)}: {len(described())} variables\n")


if __name__ == "__main__":
    main()
