"""Whether the servers keep what they promise."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError

from outbox.upkeep.postgres_checks import advice_on
from outbox.upkeep.server_checks import Level, check_servers


class Command(BaseCommand):
    """Run by the preparation of every deployment; exit code 1 on an error."""

    help = "Reports what the settings of PostgreSQL, Kafka and Redis can lose, and what to do."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            results = check_servers()
        except (OperationalError, InterfaceError) as error:
            raise CommandError(f"PostgreSQL did not answer: {error}\n{advice_on(error)}") from error
        for result in results:
            risk = f"  [{result.risk}]" if result.risk and result.level is not Level.OK else ""
            self.stdout.write(f"{result.level:8}{result.server:11}{result.found}{risk}")
            if result.means:
                self.stdout.write(f"{'':19}{result.means}")
        errors = sum(result.level is Level.ERROR for result in results)
        if errors:
            raise CommandError(
                f"{errors} errors. Change the servers' settings, or name the risks in [brackets] in ACCEPTED_RISKS to accept them."
            )
