"""Make the groups of the page of operators."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from operations.groups import make_groups


class Command(BaseCommand):
    """Makes each group once; what an admin changed in it since stays."""

    help = "Creates the groups viewer and operator with their permissions unless they exist."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = make_groups()
        except LookupError as error:
            raise CommandError(str(error)) from error
        for name in made:
            self.stdout.write(f"Group {name} was made.")
