"""Rebuild the stored entries from the posts."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feeds.cache import CacheUnavailable
from feeds.checking.rebuild import all_users, rebuild
from feeds.management.arguments import user_id


class Command(BaseCommand):
    """From the posts and never from Kafka, which keeps seven days. Pages stay right meanwhile."""

    help = "Rebuilds the stored entries of feeds from the posts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--user", type=user_id, help="of one user; default: of all, a few at a time"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        users = entries = 0
        batches: Iterable[list[str]] = (
            [[user]] if (user := options["user"]) is not None else all_users()
        )
        for batch in batches:
            try:
                entries += rebuild(batch)
            except CacheUnavailable as error:
                raise CommandError(f"{error} Run the command again when it answers.") from error
            users += len(batch)
            if self.stdout.isatty():
                self.stdout.write(f"\r{users} users, {entries} entries", ending="")
                self.stdout.flush()
        self.stdout.write(f"{users} users have {entries} rebuilt entries.")
