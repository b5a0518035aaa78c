"""What has not arrived: every committed event against every receipt."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outbox.audit import compare
from outbox.audit.compare import MISSING, AuditTally, Finding, MissingReason
from outbox.audit.repair import repair
from outbox.declaration import Route
from outbox.kafka import admin
from outbox.management.words import routes_named

SHOWN = 20
_HANDED_OVER = "events handed to the redrive as dead letters that are due now."
_OUT_OF_ORDER = "events left out, because later events of their keys are applied or parked: --out-of-order applies them anyway."
_OTHER_LOG = "events were lost with a topic that was recreated: manage.py sync_routes --recreated publishes them again."


class Command(BaseCommand):
    """Reads the whole outbox, locks nothing; exit code 1 if anything is missing."""

    help = "Compares every committed event with the receipts of its handlers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--handler", action="append", metavar="NAME", help="default: all")
        parser.add_argument(
            "--repair", action="store_true", help="hand missing events to the redrive"
        )
        parser.add_argument(
            "--out-of-order",
            action="store_true",
            help="also repair events whose successors of the same key are applied already",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        routes = routes_named(options["handler"])
        logs, error = admin.states_or_none(route.topic.name for route in routes)
        warning = (
            f"Kafka did not answer ({error}): events that its logs have lost are not reported."
            if error
            else ""
        )
        if options["repair"]:
            self._repair(routes, logs, out_of_order=options["out_of_order"])
        tallies: dict[tuple[str, MissingReason], AuditTally] = {}
        missing: list[Finding] = []
        for route in routes:
            for page in compare.pages(route, logs):
                compare.add_up(page, tallies)
                missing += [each for each in page if each.reason in MISSING]
                del missing[SHOWN * len(routes) :]
        count = sum(t.events for (_, reason), t in tallies.items() if reason in MISSING)
        if options["json"]:
            self._print_json(tallies, missing, count, warning)
        else:
            self._print(tallies, missing, warning)
        if count:
            raise CommandError(
                f"{count} events are missing. Keep this report, then hand them to the redrive with "
                "audit --repair."
            )

    def _repair(
        self, routes: Sequence[Route], logs: dict[str, admin.TopicState], *, out_of_order: bool
    ) -> None:
        """Says what it does on stderr: stdout is the report of what is left."""
        for route in routes:
            try:
                done = repair(route, logs, out_of_order=out_of_order)
            except admin.KafkaUnavailable as error:
                raise CommandError(
                    f"Kafka did not answer ({error}). Run the command again."
                ) from error
            for count, what in (
                (done.handed_over, _HANDED_OVER),
                (done.positions_moved, "positions moved to where the log begins or ends now."),
                (done.out_of_order, _OUT_OF_ORDER),
                (done.other_log, _OTHER_LOG),
            ):
                if count:
                    self.stderr.write(f"{route.handler}: {count} {what}")

    def _print(
        self,
        tallies: dict[tuple[str, MissingReason], AuditTally],
        missing: Sequence[Finding],
        warning: str,
    ) -> None:
        if warning:
            self.stderr.write(warning)
        for each in missing[:SHOWN]:
            self.stdout.write(
                f"MISSING {each.handler}: {each.type} {each.event_id} of {each.topic} "
                f"key {each.key} at {each.partition} @ {each.offset}, "
                f"{each.age_seconds:.0f} s old: {each.reason}"
            )
        for (handler, reason), tally in sorted(tallies.items()):
            word = "missing" if reason in MISSING else "waiting"
            self.stdout.write(
                f"{handler}: {tally.events} {word}, the oldest {tally.oldest_seconds:.0f} s: {reason}"
            )
        if not tallies:
            self.stdout.write("No committed event is missing.")

    def _print_json(
        self,
        tallies: dict[tuple[str, MissingReason], AuditTally],
        missing: Sequence[Finding],
        count: int,
        warning: str,
    ) -> None:
        report = {
            "missing": count,
            "warning": warning,
            "handlers": [
                {
                    "handler": handler,
                    "state": reason.name.lower(),
                    "missing": reason in MISSING,
                    "events": tally.events,
                    "oldest_seconds": round(tally.oldest_seconds, 3),
                }
                for (handler, reason), tally in sorted(tallies.items())
            ],
            "first": [asdict(each) for each in missing[:SHOWN]],
        }
        self.stdout.write(json.dumps(report, default=str))
