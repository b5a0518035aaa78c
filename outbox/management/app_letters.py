"""Dead letters that apps keep in rows of their own, as `manage.py dead_letters` shows and resolves them."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from outbox import conf, operator_log
from outbox.dead_letters.resolve import REPLAY
from outbox.declaration import AppLetter, LetterQuery, LetterSource
from outbox.envelope import rfc3339
from outbox.management.words import spelt_out

__all__ = ["concerns_handlers", "described", "letter_id", "line", "query", "resolve", "sources"]

AT_ONCE = 100
DEAD = "dead"  # their only state

Write = Callable[[str], None]


def letter_id(text: str) -> int | UUID:
    """A number, or the UUID of a letter of an app. Raises ArgumentTypeError."""
    try:
        return int(text) if text.isascii() and text.isdigit() else UUID(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is neither a number nor a UUID") from error


def concerns_handlers(options: dict[str, Any]) -> bool:
    """Whether the letters of handlers are meant: not where every id, or the handler, is an app's."""
    ids = options["ids"]
    of_apps = bool(ids) and not any(isinstance(each, int) for each in ids)
    return not of_apps and options["handler"] not in _names()


def sources(options: dict[str, Any]) -> list[LetterSource]:
    handler, states, ids = options["handler"], options["state"], options["ids"]
    if (states and DEAD not in states) or (handler and handler not in _names()):
        return []
    if ids and not any(isinstance(each, UUID) for each in ids):
        return []
    return [each for each in conf.letter_sources() if handler in ("", each.name)]


def _names() -> set[str]:
    return {source.name for source in conf.letter_sources()}


def query(options: dict[str, Any]) -> LetterQuery:
    return LetterQuery(
        ids=[each for each in options["ids"] if isinstance(each, UUID)],
        topic=options["topic"],
        key=options["key"],
        error=options["error"],
        since=options["since"],
    )


def line(source: LetterSource, letter: AppLetter) -> str:
    error = f"  {spelt_out(letter.error.splitlines()[0][:120])}" if letter.error.strip() else ""
    return (
        f"{letter.id}  {DEAD}  {source.name}  {letter.topic}  key={spelt_out(letter.key[:80])}"
        f"  attempts={letter.attempts}{error}"
    )


def described(source: LetterSource, letter: AppLetter) -> dict[str, Any]:
    """All of it, as JSON values."""
    return {
        "id": str(letter.id),
        "state": DEAD,
        "handler": source.name,
        "topic": letter.topic,
        "key": letter.key,
        "attempts": letter.attempts,
        "error": letter.error,
        "failed_at": rfc3339(letter.failed_at),
        **letter.details,
    }


def resolve(
    source: LetterSource,
    letters: Sequence[AppLetter],
    *,
    action: str,
    by: str,
    why: str,
    rate: float,
    write: Write,
) -> None:
    """Replay or discard them, and say of each what was done; `rate` a second, 0: any."""
    act = source.replay if action == REPLAY else source.discard
    done, at_once = 0, 1 if rate else AT_ONCE
    run = operator_log.begin(action, source.name, by=by, why=why, asked=len(letters))
    for start in range(0, len(letters), at_once):
        some = letters[start : start + at_once]
        changed = set(act([letter.id for letter in some], by=by))
        done += len(changed)
        operator_log.add(run, done=len(changed), skipped=len(some) - len(changed))
        for letter in some:
            word = f"{action}ed" if letter.id in changed else "is not dead any more"
            write(f"{line(source, letter)}  -> {word}")
        if rate:
            time.sleep(1 / rate)
    operator_log.end(run)
    write(f"{done} {action}ed, {len(letters) - done} skipped: {source.name}.")
