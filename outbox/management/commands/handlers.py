"""Pause and resume handlers while everything runs."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from outbox import conf, control
from outbox.envelope import rfc3339


class Command(BaseCommand):
    """Durable, without a restart. A paused handler keeps its positions and loses nothing, as long
    as it is resumed within the retention of its topics."""

    help = "Handlers of the event map: list, pause NAME --reason TEXT, resume NAME."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="one line a handler")
        pause = actions.add_parser("pause", help="when it returns, no effect runs and none begins")
        pause.add_argument("--reason", required=True)
        resume = actions.add_parser("resume", help="also after its circuit tripped")
        for action in (pause, resume):
            action.add_argument("handler", metavar="NAME")
            action.add_argument("--by", default="", help="default: the user of this system")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            for standing in control.standings(route.handler for route in conf.routes()):
                self.stdout.write(_line(standing))
            return
        by = options["by"] or getpass.getuser()
        try:
            handler = conf.route_named(options["handler"]).handler
            if options["action"] == "pause":
                control.pause_handler(handler, reason=options["reason"], by=by)
                self.stdout.write(f"{handler} is paused.")
            else:
                again = control.resume_handler(handler, by=by)
                self.stdout.write(f"{handler} runs; {again} dead letters are tried again now.")
        except LookupError as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            raise CommandError(
                f"An effect of {options['handler']} holds its position; try again: {error}"
            ) from error


def _line(standing: control.Standing) -> str:
    if not standing.paused:
        return f"{standing.handler}  running"
    since = rfc3339(standing.changed_at) if standing.changed_at else "?"
    return f"{standing.handler}  paused since {since} by {standing.changed_by}: {standing.reason}"
