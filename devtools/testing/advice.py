"""Doing what a message says, to the letter."""

from __future__ import annotations

import re
import shlex
from io import StringIO

from django.core.management import call_command

__all__ = ["advised", "advised_with_arguments", "follow"]

_COMMAND = re.compile(r"manage\.py ([a-z_]+(?: --[a-z-]+| resume \w+)*)")


def advised(text: str) -> list[str]:
    """The commands that a message names, in its order."""
    return [command.strip() for command in _COMMAND.findall(text)]


_WITH_ARGUMENTS = re.compile(r"manage\.py ((?:'[^']*'|[^',])+?)(?=,| or |$)")


def advised_with_arguments(text: str) -> list[list[str]]:
    """The words of each command that a log line's advice names, in its order."""
    return [shlex.split(command) for command in _WITH_ARGUMENTS.findall(text)]


def follow(text: str) -> str:
    """Run the commands that a message names; what they print. Raises CommandError."""
    commands = advised(text)
    assert commands, f"no command in: {text}"
    out = StringIO()
    for command in commands:
        call_command(*command.split(), stdout=out)
    return out.getvalue()
