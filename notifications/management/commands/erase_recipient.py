"""Erase a recipient, and every text that was sent to them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from notifications.erasure import erase_recipient


class Command(BaseCommand):
    """Can be started again after an interruption; what is erased is not there to be found again."""

    help = "Erase a recipient and what was sent to them; counts and times stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("recipient", help="exactly as it was given: number, address or token")

    def handle(self, *args: Any, **options: Any) -> None:
        done = erase_recipient(options["recipient"])
        self.stdout.write(
            f"{done.erased} notifications erased, {done.cancelled} of them cancelled before;"
            f" {done.answers} kept answers emptied."
        )
        if done.under_way:
            raise CommandError(
                f"{done.under_way} are being sent now and are not erased. Run the command again."
            )
