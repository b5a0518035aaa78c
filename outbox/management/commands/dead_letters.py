"""Find, look at, replay and discard dead letters."""

from __future__ import annotations

import getpass
import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from outbox.dead_letters import resolve
from outbox.dead_letters.resolve import DISCARD, REPLAY, FollowersWithoutHead, Selection
from outbox.declaration import LetterSource
from outbox.envelope import rfc3339
from outbox.management import app_letters
from outbox.management.words import positive, spelt_out
from outbox.models import DeadLetter, DeadLetterAction

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
STATES = {state.label: state for state in DeadLetter.State}
OPEN = ("retrying", "parked", "dead")
COUNTED = 10_000


class Command(BaseCommand):
    """list and inspect change nothing; replay and discard say what they did with each letter, and
    can be started again after an interruption: what is done is not done twice."""

    help = "Dead letters: list, inspect, replay (try again now), discard (never)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        for name, text in (
            ("list", "one line a letter"),
            ("inspect", "everything that is known of each letter, as JSON, one a line"),
            (
                REPLAY,
                "dead heads are due at once with all their attempts; their followers are applied after them",
            ),
            (DISCARD, "the events are never applied; what waits behind them is applied"),
        ):
            action = actions.add_parser(name, help=text)
            action.add_argument(
                "ids",
                nargs="*",
                type=app_letters.letter_id,
                metavar="ID",
                help="a number, or a UUID of an app's",
            )
            action.add_argument("--topic", default="")
            action.add_argument("--handler", default="")
            action.add_argument("--key")
            action.add_argument("--error", default="", metavar="TEXT", help="text in the error")
            action.add_argument(
                "--since",
                type=since,
                metavar="TIME",
                help="a time (2026-03-11T22:00:00Z) or an age (15m, 2h, 3d)",
            )
            action.add_argument("--state", action="append", choices=STATES, help="may be repeated")
            action.add_argument("--limit", type=positive, default=100, metavar="N")
            if name in (REPLAY, DISCARD):
                action.add_argument("--dry-run", action="store_true")
                action.add_argument("--rate", type=float, default=0.0, metavar="PER_SECOND")
                action.add_argument("--by", default="", help="default: the user of this system")
                action.add_argument("--note", default="", help="kept with the letter")

    def handle(self, *args: Any, **options: Any) -> None:
        action, limit = options["action"], options["limit"]
        wanted = _selection(options)
        ours = app_letters.concerns_handlers(options)
        left_out = resolve.select(wanted)[limit : limit + COUNTED].count() if ours else 0
        if not ours:
            pass
        elif action == "list":
            for letter in resolve.select(wanted)[:limit]:
                self.stdout.write(_line(letter))
        elif action == "inspect":
            for letter in resolve.select(wanted)[:limit]:
                self.stdout.write(json.dumps(described(letter), ensure_ascii=False))
        else:
            self._resolve(action, wanted, options)
        left_out += sum(self._of_source(source, options) for source in app_letters.sources(options))
        if left_out:
            more = f"{left_out} or more" if left_out == COUNTED else str(left_out)
            self.stderr.write(f"Left out by --limit {limit}: {more}.")

    def _resolve(self, action: str, wanted: Selection, options: dict[str, Any]) -> None:
        try:
            if options["dry_run"]:
                letters, beside = resolve.preview(wanted, limit=options["limit"])
                for letter in letters:
                    self.stdout.write(_line(letter))
                self.stdout.write(
                    f"Would {action} {len(letters)} letters; {beside} followers are applied after them."
                )
                return
            done = skipped = 0
            for outcome in resolve.resolve_letters(
                action,
                wanted,
                by=options["by"] or getpass.getuser(),
                limit=options["limit"],
                rate=options["rate"],
                note=options["note"],
            ):
                done += outcome.done
                skipped += not outcome.done
                self.stdout.write(f"{_line(outcome.letter)}  -> {outcome.word}")
        except FollowersWithoutHead as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{done} {action}ed, {skipped} skipped.")

    def _of_source(self, source: LetterSource, options: dict[str, Any]) -> int:
        """The same for the letters of an app; how many were left out."""
        action, limit = options["action"], options["limit"]
        found = source.find(app_letters.query(options), limit + COUNTED)
        letters = found[:limit]
        if not letters:
            return 0
        if action == "inspect":
            for letter in letters:
                shown = app_letters.described(source, letter)
                self.stdout.write(json.dumps(shown, ensure_ascii=False))
        elif action == "list" or options["dry_run"]:
            for letter in letters:
                self.stdout.write(app_letters.line(source, letter))
            if action != "list":
                self.stdout.write(f"Would {action} {len(letters)} {source.name}.")
        else:
            app_letters.resolve(
                source,
                letters,
                action=action,
                by=options["by"] or getpass.getuser(),
                why=options["note"],
                rate=options["rate"],
                write=self.stdout.write,
            )
        return len(found) - len(letters)


def _selection(options: dict[str, Any]) -> Selection:
    default = ("dead",) if options["action"] == REPLAY and not options["ids"] else OPEN
    return Selection(
        ids=[each for each in options["ids"] if isinstance(each, int)],
        topic=options["topic"],
        handler=options["handler"],
        key=options["key"],
        error=options["error"],
        since=options["since"],
        states=[STATES[label] for label in options["state"] or default],
    )


def duration(text: str) -> timedelta:
    """For example 15m, 2h, 3d. Raises ArgumentTypeError."""
    try:
        if text[-1:] in UNITS and text[:-1].isascii() and text[:-1].isdigit():
            return timedelta(**{UNITS[text[-1]]: int(text[:-1])})
    except OverflowError:
        pass
    raise ArgumentTypeError(f"{text!r} is not a duration like 15m, 2h or 3d")


def since(text: str) -> datetime:
    """A moment, or how long ago. Raises ArgumentTypeError."""
    if text[-1:] in UNITS:
        return timezone.now() - duration(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is neither a time nor a duration like 2h") from error
    return moment if moment.tzinfo else timezone.make_aware(moment)


def _line(letter: DeadLetter) -> str:
    place = "" if letter.offset is None else f" {letter.partition}@{letter.offset}"
    error = f"  {spelt_out(letter.error.splitlines()[0][:120])}" if letter.error.strip() else ""
    return (
        f"{letter.id}  {letter.get_state_display()}  {letter.handler}  {letter.topic}{place}"
        f"  key={spelt_out(letter.key[:80])}  {letter.event_id}  attempts={letter.attempts}"
        f" replays={letter.replay_count}{error}"
    )


def described(letter: DeadLetter) -> dict[str, Any]:
    """All of a letter, its history included, as JSON values."""
    return {
        "id": letter.id,
        "state": letter.get_state_display(),
        "handler": letter.handler,
        "event_id": str(letter.event_id),
        "type": letter.type,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": letter.key,
        "time": letter.event_time,
        "payload": letter.payload,
        "attempts": letter.attempts,
        "replay_count": letter.replay_count,
        "error": letter.error,
        "failed_at": _moment(letter.failed_at),
        "created_at": _moment(letter.created_at),
        "next_attempt_at": _moment(letter.next_attempt_at),
        "resolved_at": _moment(letter.resolved_at),
        "resolved_by": letter.resolved_by,
        "note": letter.note,
        "correlation_id": letter.correlation_id,
        "traceparent": letter.traceparent,
        "history": [
            {"action": each.action, "by": each.by, "at": _moment(each.at), "note": each.note}
            for each in DeadLetterAction.objects.filter(letter=letter).order_by("id")
        ],
    }


def _moment(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None
