"""Look at providers and their breakers; reset one."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from notifications.delivery.standing import (
    ProviderStatus,
    UnknownProvider,
    reset_breaker,
    standings,
)


class Command(BaseCommand):
    """A reset holds for all workers at once."""

    help = "Lists providers by channel with their breakers, or closes a breaker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="list providers and channels, in their order")
        reset = actions.add_parser(
            "reset", help="close the breaker, and end the wait that the provider asked for"
        )
        reset.add_argument("provider")
        reset.add_argument("channel")
        reset.add_argument("--reason", required=True, help="kept with the name of who did it")
        reset.add_argument("--by", default="", help="default: the user of this system")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            for standing in standings():
                self.stdout.write(_line(standing))
            return
        try:
            stored = reset_breaker(
                options["provider"],
                options["channel"],
                who=options["by"] or getpass.getuser(),
                reason=options["reason"],
            )
        except UnknownProvider as error:
            raise CommandError(str(error)) from error
        if not stored:
            raise CommandError(
                "Redis is unavailable, so no worker got the reset. Run the command again when it answers."
            )
        self.stdout.write(f"{options['provider']} is called again for {options['channel']}.")


def _line(standing: ProviderStatus) -> str:
    parts = [f"{standing.channel:5}  {standing.provider} ({standing.kind})  {standing.breaker}"]
    if standing.opens_in:
        parts.append(f"probes in {standing.opens_in:.0f} s")
    if standing.held_for:
        parts.append(f"asked to wait {standing.held_for:.0f} s more")
    return ", ".join(parts)
