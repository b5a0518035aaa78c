"""Store the follows of a file."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feeds.following_import import BadFile, Imported, count_follows, import_follows


class Command(BaseCommand):
    """In pieces, each a transaction with the events of its follows."""

    help = (
        "Imports follows from a CSV file: follower_id,followee_id a line, in UTF-8. The"
        " whole file is checked before anything is stored. Safe to run again. Feeds show the posts"
        " at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        path = options["file"]
        try:
            wanted = count_follows(path)
        except BadFile as error:
            self.stderr.write("\n".join(error.lines))
            raise CommandError(
                f"Nothing of {path} was imported: some lines are invalid. Correct them and import it again."
            ) from None
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
        begun = time.monotonic()

        def show(imported: Imported) -> None:
            rate = imported.lines / max(time.monotonic() - begun, 0.001)
            self.stdout.write(
                f"{imported.lines:,} of {wanted:,} lines, {imported.new:,} new follows,"
                f" {rate:,.0f} lines/s"
            )
            self.stdout.flush()

        stored = import_follows(path, on_piece=show).lines
        if stored != wanted:
            raise CommandError(
                f"{path} had {wanted:,} lines when it was checked, and {stored:,} when they were"
                " stored: it is a pipe, or it has changed. Import it again, from a file."
            )
        if not stored:
            self.stdout.write("The file has no follows.")
