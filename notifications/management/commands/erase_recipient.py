"""Erase a recipient, and every text that was sent to them."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from notifications.erasure import erase_recipient
from outbox import operator_log


class Command(BaseCommand):
    """Can be started again after an interruption; what is erased is not there to be found again."""

    help = "Erase a recipient and what was sent to them; counts and times stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("recipient", help="exactly as it was given: number, address or token")
        parser.add_argument("--by", default="", help="default: the user of this system")
        parser.add_argument(
            "--note", default="", help="why; kept for a year, so without the recipient"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        recipient = options["recipient"]
        # Nothing that is kept may say whom it was about.
        why = options["note"].replace(recipient, "…") if recipient else options["note"]
        run = operator_log.begin(
            "erase", "a recipient", by=options["by"] or getpass.getuser(), why=why
        )
        done = erase_recipient(recipient)
        operator_log.add(run, done=done.erased, skipped=done.under_way)
        operator_log.end(run, "some are being sent" if done.under_way else "")
        self.stdout.write(
            f"{done.erased} notifications erased, {done.cancelled} of them cancelled before;"
            f" {done.answers} kept answers emptied."
        )
        if done.under_way:
            raise CommandError(
                f"{done.under_way} are being sent now and are not erased. Run the command again."
            )
