"""`manage.py cut_release NAME`: note which event types this release reads and publishes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from eventsite import releases


class Command(BaseCommand):
    """Run with the production settings' apps, before the release is built; commit the file."""

    help = "Adds a release to eventsite/releases.json, with which later code is compared."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="for example 2026.12 or v4")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            releases.add(releases.as_of_now(options["name"], settings.WIRING))
        except releases.ReleaseExists as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{releases.FILE.name} has release {options['name']}: commit it.")
