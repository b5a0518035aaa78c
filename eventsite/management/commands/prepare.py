"""Everything that must be done before the processes start, in one go."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from outbox.kafka.admin import KafkaUnavailable
from outbox.upkeep import kafka_checks


class Command(BaseCommand):
    """migrate, create_topics, sync_routes, check_servers, ensure_groups, ensure_admin; any of them can stop it.

    Beside them it has the broker replace a dead bridge as soon as it allows."""

    help = "Prepares database and topics for this release; safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--new-log",
            action="store_true",
            help="Kafka's topics were recreated: positions move to the new log, and events that were not applied are published again",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=1, stdout=self.stdout)
        call_command("create_topics", stdout=self.stdout)
        call_command("sync_routes", recreated=options["new_log"], stdout=self.stdout)
        try:
            reached = kafka_checks.shorten_takeovers()
        except KafkaUnavailable as error:
            raise CommandError(
                f"Kafka did not answer: {error}. Run the command again when it does."
            ) from error
        if reached:
            self.stdout.write(reached)
        call_command("check_servers", stdout=self.stdout)
        call_command("ensure_groups", stdout=self.stdout)
        call_command("ensure_admin", stdout=self.stdout)
