"""Serve the API, the admin and the metrics."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from eventsite.web import server


class Command(BaseCommand):
    """SIGTERM finishes what was accepted, then exits 0."""

    help = "Serves the API, the admin and the metrics over HTTP."
    requires_system_checks = ()  # `manage.py check` and /health/ready are for that

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8080)
        parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
        parser.add_argument("--application", default=server.APPLICATION, metavar="MODULE:NAME")

    def handle(self, *args: Any, **options: Any) -> None:
        server.serve(
            options["application"],
            host=options["host"],
            port=options["port"],
            workers=options["workers"],
        )
