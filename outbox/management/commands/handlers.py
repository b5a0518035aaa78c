"""Pause and resume handlers while everything runs."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from outbox import conf, operator_log
from outbox.dead_letters import unknown_type
from outbox.envelope import rfc3339
from outbox.handlers.pause import (
    handler_statuses,
    pause_handler,
    resume_handler,
)
from outbox.management.commands.dead_letters import duration
from outbox.models import HandlerControl

LONGEST_PARKING = timedelta(days=1)


class Command(BaseCommand):
    """Durable, without a restart. A paused handler keeps its positions and loses nothing, as long
    as it is resumed within the retention of its topics."""

    help = (
        "Handlers: list, pause NAME --reason TEXT, resume NAME"
        " [--park-failures 10m], take NAME --type T."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="one line per handler")
        pause = actions.add_parser(
            "pause",
            help="stop the handler; when the command returns, no effect runs and none begins",
        )
        pause.add_argument("--reason", required=True)
        resume = actions.add_parser(
            "resume", help="run a handler again, also after its circuit has tripped"
        )
        resume.add_argument(
            "--park-failures",
            type=parking_time,
            metavar="TIME",
            help="for this time (10m, 2h; at most 1d) park failures and keep the circuit closed",
        )
        take = actions.add_parser(
            "take", help="apply events that were parked because a release did not know their type"
        )
        take.add_argument("--type", required=True, metavar="T", help="for example ORDER_RETURNED")
        take.add_argument("handler", metavar="NAME")
        for action in (pause, resume):
            action.add_argument("handler", metavar="NAME")
            action.add_argument("--by", default="", help="default: the user of this system")
        resume.add_argument("--reason", default="", help="kept with the name of who did it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            for status in handler_statuses(route.handler for route in conf.routes()):
                self.stdout.write(_line(status))
            return
        if options["action"] == "take":
            self._take(options["handler"], options["type"])
            return
        by = options["by"] or getpass.getuser()
        try:
            handler = conf.route_named(options["handler"]).handler
            if options["action"] == "pause":
                pause_handler(handler, reason=options["reason"], by=by)
                self.stdout.write(f"{handler} is paused.")
            else:
                parking = options["park_failures"]
                again = resume_handler(
                    handler, by=by, reason=options["reason"], park_failures=parking
                )
                self.stdout.write(
                    f"{handler} is running; {again} dead letters are tried again now."
                )
                if parking:
                    self.stdout.write(f"For {parking} its circuit does not trip.")
        except LookupError as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            raise CommandError(
                f"{options['handler']} was not changed: a running effect holds its position ({error}). Try again."
            ) from error

    def _take(self, handler: str, type_: str) -> None:
        try:
            taken = unknown_type.take(conf.route_named(handler), type_)
        except LookupError as error:
            raise CommandError(str(error)) from error
        subject = f"events of type {type_} of {handler}"
        operator_log.note("take", subject, by=getpass.getuser(), done=taken)
        self.stdout.write(f"{taken} parked events of type {type_} are tried now.")


def parking_time(text: str) -> timedelta:
    """A duration above zero, at most a day. Raises ArgumentTypeError."""
    time = duration(text)
    if not timedelta() < time <= LONGEST_PARKING:
        raise ArgumentTypeError(f"{text!r} is not a time of at most a day, like 10m or 2h")
    return time


def _line(status: HandlerControl) -> str:
    if not status.paused:
        until = status.parks_failures_until
        parks = f", parks failures until {rfc3339(until)}" if until else ""
        return f"{status.handler}  running{parks}"
    since = rfc3339(status.changed_at) if status.changed_at else "?"
    return f"{status.handler}  paused since {since} by {status.changed_by}: {status.reason}"
