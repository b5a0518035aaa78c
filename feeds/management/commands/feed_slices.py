"""Slices of fan-out that failed."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feeds.fanout.measuring import failed_slices, retry
from feeds.management.arguments import positive

SHOWN = 100


class Command(BaseCommand):
    """`list` shows the failed ones, `retry` has them tried again."""

    help = "Lists slices of the fan-out that failed, or retries them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="list failed slices, the oldest first")
        listing.add_argument("--limit", type=positive, default=SHOWN)
        again = actions.add_parser("retry", help="retry slices from the start")
        again.add_argument("ids", nargs="*", type=int, help="slices, as `list` shows them")
        again.add_argument("--all", action="store_true", help="every failed slice")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            self._list(options["limit"])
            return
        if bool(options["ids"]) == options["all"]:
            raise CommandError("Give slice ids or --all, not both.")
        count = retry(None if options["all"] else options["ids"])
        self.stdout.write(f"{count} slices are tried again.")
        if count < len(options["ids"]):
            raise CommandError(
                f"{len(options['ids']) - count} of the named slices have not failed and stay as they "
                "are; `feed_slices list` shows the failed ones."
            )

    def _list(self, limit: int) -> None:
        slices = failed_slices(limit)
        if not slices:
            self.stdout.write("No slice has failed.")
        for each in slices:
            of = f" of post {each.post_id}" if each.post_id else ""
            to = f" for {each.follower_id}" if each.follower_id else ""
            self.stdout.write(
                f"{each.id}  {each.failed_at:%Y-%m-%d %H:%M:%S}  {each.kind}{of} by"
                f" {each.author_id}{to}: {each.error}"
            )
