"""Remove a user from the feeds."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feeds.cache import CacheUnavailable
from feeds.erasure import ErasedUser, erase_user
from feeds.management.arguments import user_id


class Command(BaseCommand):
    """In small pieces, with an event for each post and follow."""

    help = (
        "Deletes the posts of a user, the follows both ways, the entries, the cached feed and the kept answers, each"
        " with its event. Safe to run again. The user must not act any more."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", type=user_id, help="id of the user")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            erased = erase_user(options["user"], on_piece=self._show)
        except CacheUnavailable as error:
            raise CommandError(f"{error} Run the command again when it answers.") from error
        self._show(erased)
        if erased.waiting:
            self.stdout.write(
                f"{erased.waiting:,} ended follows are kept until their clean-up is done;"
                " run the command again in a moment."
            )

    def _show(self, erased: ErasedUser) -> None:
        self.stdout.write(
            f"{erased.posts:,} posts, {erased.follows:,} follows, {erased.entries:,} entries,"
            f" {erased.answers:,} kept answers"
        )
        self.stdout.flush()
