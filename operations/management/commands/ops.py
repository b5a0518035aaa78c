"""The page /ops/ in a terminal; it needs no web server."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand
from rich.live import Live

from operations.charts import SPANS
from operations.observer import Observer
from operations.pages import as_json
from operations.snapshot import Snapshot
from operations.terminal import rendered, view
from outbox.watching import AMBER, GREEN, GREY, RED

# The codes that monitoring plugins use: OK, WARNING, CRITICAL, UNKNOWN
# (https://nagios-plugins.org/doc/guidelines.html#AEN78).
EXIT_CODES = {GREEN: 0, AMBER: 1, RED: 2, GREY: 3}
ANSWERS_WITHIN = 4.0
BETWEEN = 2.1  # seconds between the two looks from which rates are computed
WATCH_SECONDS = 2.0


class Command(BaseCommand):
    """Asks each server itself, and names those that do not answer. The exit code is the state: 0 green,
    1 amber, 2 red, 3 grey."""

    help = "Shows the state of every hop, server and process: the page /ops/ in a terminal."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["status"])
        parser.add_argument("--span", choices=SPANS, default="hour", help="of the charts")
        shape = parser.add_mutually_exclusive_group()
        shape.add_argument("--json", action="store_true", help="for scripts, as /ops/status.json")
        shape.add_argument(
            "--watch", action="store_true", help="again and again, until Ctrl+C (exit code 0)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # A new observer, so that no earlier answer counts as new.
        observer = Observer()
        span = options["span"]
        if options["watch"]:
            with suppress(KeyboardInterrupt):
                _watch(observer, span)
            return
        snapshot = _look(observer)
        if options["json"]:
            self.stdout.write(json.dumps(as_json(snapshot, span=span, letters=True), indent=2))
        else:
            text = rendered(snapshot, colour=self.stdout.isatty(), span=span)
            self.stdout.write(text, ending="")
        self.stdout.flush()
        sys.exit(EXIT_CODES[snapshot.state])


def _look(observer: Observer) -> Snapshot:
    """A second snapshot, if a server answers: rates are computed from two."""
    first = observer.look(wait=ANSWERS_WITHIN)
    if all(server.reason for server in first.servers):
        return first
    time.sleep(BETWEEN)
    return observer.look(wait=0.0)


def _watch(observer: Observer, span: str) -> None:
    first = view(observer.look(wait=ANSWERS_WITHIN), span)
    with Live(first, auto_refresh=False) as screen:
        while True:
            time.sleep(WATCH_SECONDS)
            screen.update(view(observer.look(wait=0.0), span), refresh=True)
