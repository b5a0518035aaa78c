"""Make the groups of the page of operators."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from operations.groups import make_groups


class Command(BaseCommand):
    """Makes each group once; what an admin changed in it since stays."""

    help = "Creates the groups viewer and operator with their permissions unless they exist."

    def handle(self, *args: Any, **options: Any) -> None:
        for name in make_groups():
            self.stdout.write(f"Group {name} was made.")
