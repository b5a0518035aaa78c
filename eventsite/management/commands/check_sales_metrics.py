"""Recount the sales figures from the orders."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventsite.reports.recount import FigureComparison, compare


class Command(BaseCommand):
    """Exit code 1 on a difference. An event under way is not a difference; events of other
    producers are listed and not compared."""

    help = "Compares every sales figure with a recount from the orders; exits 1 on a difference."

    def handle(self, *args: Any, **options: Any) -> None:
        found = compare()
        self._tell_foreign(found)
        if found.set_aside:
            self.stdout.write(
                f"{found.set_aside} additions are set aside, so their figures lack them: see "
                "FiguresSetAside in docs/operations.md."
            )
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
        raise CommandError(
            f"{found.different} of {found.figures} figures differ; {under_way}. `audit` finds events "
            "that were not applied; `replay --handler record_sales` builds the figures again."
        )

    def _tell_foreign(self, found: FigureComparison) -> None:
        if not found.foreign_figures:
            return
        self.stdout.write(
            f"Events of other producers are counted separately, in {found.foreign_figures} figures:"
        )
        for each in found.foreign:
            self.stdout.write(f"  {each.metric_name} [{each.dimension}]: {each.value}")
        if found.foreign_figures > len(found.foreign):
            self.stdout.write(f"  … and {found.foreign_figures - len(found.foreign)} more")
