"""Recount the sales figures from the orders."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventsite.recount import compare


class Command(BaseCommand):
    """Exit code 1 on a difference; an event under way is none."""

    help = "Compares every sales figure with a recount from the orders; exits 1 on a difference."

    def handle(self, *args: Any, **options: Any) -> None:
        found = compare()
        under_way = f"{found.under_way} events are under way"
        if not found.different:
            self.stdout.write(f"All {found.figures} figures equal the recount; {under_way}.")
            return
        for each in found.differences:
            self.stdout.write(
                f"{each.metric_name} [{each.dimension}]: "
                f"the figure is {each.figure}, the recount {each.recount}"
            )
        if found.different > len(found.differences):
            self.stdout.write(f"… and {found.different - len(found.differences)} more")
        raise CommandError(f"{found.different} of {found.figures} figures differ; {under_way}.")
