"""See and resolve what the relay could not relay."""

from __future__ import annotations

import base64
import getpass
import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError

from outbox import operator_log
from outbox.management.words import positive, spelt_out
from outbox.rabbitmq.letters import LettersUnavailable, RelayLetter, look, resolve
from outbox.rabbitmq.metrics import KINDS
from outbox.rabbitmq.policy import configured

REPLAY, DISCARD = "replay", "discard"


class Command(BaseCommand):
    """One line a letter: id, kind, event id, time, reason."""

    help = "Lists, inspects, replays and discards the dead letters of the relay."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        for name, text in (
            ("list", "one line per letter, oldest first"),
            ("inspect", "each whole letter as one line of JSON"),
            (REPLAY, "put the messages into the relay's queue again"),
            (DISCARD, "drop the messages for good"),
        ):
            action = actions.add_parser(name, help=text)
            action.add_argument("ids", nargs="*", metavar="ID", help="of letters; default: all")
            action.add_argument("--event-id", default="")
            action.add_argument("--kind", choices=KINDS)
            action.add_argument("--reason", default="", metavar="TEXT", help="text in the reason")
            action.add_argument("--limit", type=positive, default=100, metavar="N")
            if name in (REPLAY, DISCARD):
                action.add_argument("--dry-run", action="store_true")
                action.add_argument("--by", default="", help="default: the user of this system")
                action.add_argument("--note", default="", help="why; kept with what was done")
            if name == DISCARD:
                action.add_argument("--all", action="store_true", help="all letters")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted, action, limit = _selection(options), options["action"], options["limit"]
        choices = ("ids", "event_id", "kind", "reason", "all")
        if action == DISCARD and not any(options[name] for name in choices):
            raise CommandError("Give ids, --event-id, --kind or --reason, or --all.")
        try:
            if action in (REPLAY, DISCARD) and not options["dry_run"]:
                done = 0
                for letter in _resolved(action, wanted, options):
                    done += 1
                    self.stdout.write(_line(letter))
                self.stdout.write(f"{done} {action}ed.")
                return
            letters = look(configured(), wanted=wanted, limit=limit).letters
        except LettersUnavailable as error:
            raise CommandError(str(error)) from error
        for letter in letters:
            if action == "inspect":
                self.stdout.write(json.dumps(described(letter), ensure_ascii=False))
            else:
                self.stdout.write(_line(letter))
        if action in (REPLAY, DISCARD):
            self.stdout.write(f"Would {action} {len(letters)} letters.")


def _resolved(
    action: str, wanted: Callable[[RelayLetter], bool], options: dict[str, Any]
) -> Iterator[RelayLetter]:
    """Each that it was done with; the log of operators counts them. Raises LettersUnavailable."""
    try:
        run = operator_log.begin(
            action,
            _subject(options),
            by=options["by"] or getpass.getuser(),
            why=options["note"],
        )
    except (DatabaseError, InterfaceError) as error:
        raise CommandError(
            f"Nothing was done, because PostgreSQL cannot record the action: {error}. Try again when it answers."
        ) from error
    done, outcome = 0, "ended early"
    try:
        for letter in resolve(
            configured(), wanted, limit=options["limit"], replay=action == REPLAY
        ):
            done += 1
            yield letter
        outcome = ""
    except LettersUnavailable as error:
        outcome = str(error)
        raise
    finally:
        # RabbitMQ has no transaction with PostgreSQL: what is done stays done.
        with suppress(DatabaseError, InterfaceError):
            operator_log.add(run, done=done)
            operator_log.end(run, outcome)


def _subject(options: dict[str, Any]) -> str:
    chosen = [
        *options["ids"],
        *(
            f"{name.replace('_', ' ')} {options[name]}"
            for name in ("event_id", "kind", "reason")
            if options[name]
        ),
    ]
    return f"dead letters of the relay{': ' if chosen else ''}{', '.join(chosen)}"


def _selection(options: dict[str, Any]) -> Callable[[RelayLetter], bool]:
    ids = set(options["ids"])

    def wanted(letter: RelayLetter) -> bool:
        return (
            (not ids or letter.id in ids)
            and options["event_id"] in ("", letter.event_id)
            and options["kind"] in (None, letter.kind)
            and options["reason"] in letter.reason
        )

    return wanted


def _line(letter: RelayLetter) -> str:
    return (
        f"{spelt_out(letter.id)}  {spelt_out(letter.kind)}  {spelt_out(letter.event_id) or '-'}"
        f"  {spelt_out(letter.time)}  {spelt_out(letter.reason[:200])}"
    )


def described(letter: RelayLetter) -> dict[str, Any]:
    """All of a letter as JSON values; a body that is no UTF-8 is base64."""
    try:
        body = {"body": letter.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(letter.body).decode()}
    return {
        "id": letter.id,
        "kind": letter.kind,
        "reason": letter.reason,
        "time": letter.time,
        "event_id": letter.event_id,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "headers": {
            name: value if isinstance(value, str | int | bool | None) else str(value)
            for name, value in letter.properties.headers_shown().items()
        },
        **body,
    }
