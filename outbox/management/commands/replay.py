"""Build a handler's tables again from the log."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from outbox import conf
from outbox.audit.replay import ReplayRefused, plan, replay
from outbox.kafka import admin


class Command(BaseCommand):
    """Other handlers are not touched, no process is restarted; while it runs, the handler's tables
    are empty and fill up again."""

    help = "Empties the tables of one handler and applies the log to them again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--handler", required=True, metavar="NAME")
        parser.add_argument(
            "--since",
            default="start",
            metavar="start|earliest|PARTITION=OFFSET,…",
            help="default: where the handler first began",
        )
        parser.add_argument(
            "--yes", action="store_true", help="do it; without this, only show what would happen"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            route = conf.route_named(options["handler"])
            states = admin.topic_states([route.topic.name])
            if not states:
                raise CommandError(
                    f"Topic {route.topic.name} does not exist: run manage.py create_topics first."
                )
            wanted = plan(route, states[route.topic.name], since=_since(options["since"]))
            self.stdout.write(
                f"{route.handler}: {route.reset} empties its tables, then up to {wanted.messages} messages "
                f"of {route.topic.name} are applied again."
            )
            if not options["yes"]:
                raise CommandError("Nothing was changed: add --yes to do it.")
            receipts = replay(wanted, by=getpass.getuser())
        except (LookupError, ReplayRefused) as error:
            raise CommandError(str(error)) from error
        except admin.KafkaUnavailable as error:
            raise CommandError(
                f"Kafka did not answer: {error}. Run the command again when it does."
            ) from error
        except OperationalError as error:
            raise CommandError(
                f"Nothing was emptied, and the handler is paused: {error}. Run the command again."
            ) from error
        self.stdout.write(
            f"{receipts} receipts deleted; the handler applies the log again. It is done when its backlog is 0: manage.py audit shows what is left."
        )


def _since(text: str) -> str | Mapping[int, int]:
    if text in ("start", "earliest"):
        return text
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {int(number): int(offset) for number, offset in pairs}
    except ValueError as error:
        raise CommandError(
            f"--since {text}: give start, earliest, or offsets such as 0=120,3=77."
        ) from error
