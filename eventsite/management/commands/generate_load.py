"""Send orders to a running system, and say what became of them."""

from __future__ import annotations

import argparse
import json
import random
import re
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from eventsite.load.client import Client
from eventsite.load.console import Progress, print_summary
from eventsite.load.generator import ARRIVALS, Plan, generate
from eventsite.load.machine import describe_machine
from eventsite.load.page import render
from eventsite.load.payloads import KINDS
from eventsite.load.summary import Summary
from eventsite.load.tally import Tally
from eventsite.load.thresholds import METRICS, Threshold
from eventsite.load.verify import Verdict, verify_by_database, verify_by_http
from eventsite.settings.env import environment
from outbox.collector import calm_down

EXAMPLE = """examples:
  manage.py generate_load --rate 300 --duration 1m --html load.html --fail-if "p99>250ms" --fail-if "lost>0"
  manage.py generate_load --closed 32 --duration 20s           find the capacity, then measure at 50 to 80 %% of it
  manage.py generate_load --rate 100 --duration 5m --url https://orders.example --header "X-API-Key: …"

exit codes: 0; 1 when a threshold is crossed; 2 for arguments that make no sense
"""
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)")
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
PIPE_WIDTH = 120


class Command(BaseCommand):
    """Open model unless --closed; looks for every accepted order at the end."""

    help = (
        "Sends orders by the clock whether or not answers come, counts latency from the moment each"
        " was due, and looks for every accepted order and its effect at the end."
    )
    requires_system_checks = ()

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        parser = super().create_parser(*args, **kwargs)
        parser.epilog = EXAMPLE
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        model = parser.add_mutually_exclusive_group(required=True)
        model.add_argument("--rate", type=_positive, help="orders a second, by the clock")
        model.add_argument(
            "--closed", type=_count, metavar="N", help="N connections at full speed instead"
        )
        parser.add_argument("--duration", type=_seconds, default=60.0, help="90, 90s, 5m, 1h")
        parser.add_argument("--url", help="default: the web process of this machine, on PORT")
        parser.add_argument("--customers", type=_count, default=5000)
        parser.add_argument("--seed", type=int, help="the same seed sends the same orders")
        parser.add_argument("--kind", choices=KINDS, default="orders")
        parser.add_argument(
            "--arrivals",
            choices=ARRIVALS,
            default="poisson",
            help="poisson: as independent callers come; even: all equally far apart",
        )
        parser.add_argument("--max-in-flight", type=_count, default=2000, metavar="N")
        parser.add_argument("--timeout", type=_seconds, default=30.0, help="for one answer")
        parser.add_argument(
            "--header", action="append", default=[], type=_header, metavar="'Name: value'"
        )
        parser.add_argument(
            "--check",
            choices=("database", "http", "none"),
            help="where accepted orders are looked for; default: database, with --url http",
        )
        parser.add_argument("--settle", type=_seconds, default=60.0, help="wait for effects")
        parser.add_argument("--json", type=Path, metavar="FILE")
        parser.add_argument("--html", type=Path, metavar="FILE")
        parser.add_argument(
            "--fail-if",
            action="append",
            default=[],
            type=_threshold,
            metavar="'p99>250ms'",
            help=f"exit 1 if so; may be repeated; metrics: {', '.join(METRICS).replace('%', '%%')}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        plan = _plan(options)
        check = options["check"] or ("http" if options["url"] else "database")
        _refuse_unknowable(options["fail_if"], check)
        for path in filter(None, (options["json"], options["html"])):
            _refuse_unwritable(path)
        machine = describe_machine()
        _allow_connections(plan.closed or plan.max_in_flight)
        self._say(f"{plan.url}: kind {plan.kind}, seed {plan.seed}, run {plan.run}")
        progress = Progress(self._say, terminal=self.stdout.isatty(), wanted=plan.rate)
        calm_down()  # a collection through all that is loaded would count as latency
        tally = generate(plan, on_second=progress.show)
        verdict = _verdict(check, plan, tally, options["settle"])
        summary = Summary(
            plan=plan,
            tally=tally,
            verdict=verdict,
            machine=machine,
            thresholds=options["fail_if"],
        )
        self._say(_rendered(summary, colour=self.stdout.isatty()))
        if options["json"]:
            options["json"].write_text(json.dumps(summary.as_dict(), indent=1) + "\n")
        if options["html"]:
            options["html"].write_text(render(summary))
        if crossed := summary.crossed():
            raise CommandError("Crossed: " + ", ".join(each.text for each in crossed))

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _rendered(summary: Summary, *, colour: bool) -> str:
    console = Console(file=StringIO(), force_terminal=colour, width=None if colour else PIPE_WIDTH)
    with console.capture() as captured:
        print_summary(console, summary)
    return captured.get()


def _plan(options: dict[str, Any]) -> Plan:
    url = options["url"] or f"http://127.0.0.1:{environment().port}"
    headers = dict(options["header"])
    try:
        Client(url, headers=headers)
    except ValueError as error:
        raise CommandError(str(error), returncode=2) from None
    seed = options["seed"]
    return Plan(
        url=url.rstrip("/"),
        seconds=options["duration"],
        rate=options["rate"] or 0.0,
        closed=options["closed"] or 0,
        kind=options["kind"],
        customers=options["customers"],
        seed=random.SystemRandom().randrange(10**6) if seed is None else seed,
        arrivals=options["arrivals"],
        max_in_flight=options["max_in_flight"],
        timeout=options["timeout"],
        headers=headers,
    )


def _verdict(check: str, plan: Plan, tally: Tally, within: float) -> Verdict | None:
    if check == "database":
        return verify_by_database(tally, plan.run, within=within)
    if check == "http":
        return verify_by_http(tally, plan.url, timeout=plan.timeout, headers=plan.headers)
    return None


def _refuse_unknowable(thresholds: list[Threshold], check: str) -> None:
    """Before the load, not after it."""
    for each in thresholds:
        needs_database = each.metric.startswith("e2e_") or each.metric == "figures"
        needs_check = needs_database or each.metric in ("lost", "duplicates")
        if (needs_database and check != "database") or (needs_check and check == "none"):
            raise CommandError(
                f"{each.text!r} cannot be known with --check {check}: use --check database"
                " where the settings name the database of the system under load.",
                returncode=2,
            )


def _refuse_unwritable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.", returncode=2) from None


def _allow_connections(number: int) -> None:
    """Raise the soft limit of open files, as far as it may be."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415  (not on Windows)

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = number + 200
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _seconds(text: str) -> float:
    found = DURATION.fullmatch(text)
    if found is None or not float(found[1]):
        raise ArgumentTypeError(f"{text!r} is no duration: write 90, 90s, 1.5m or 1h")
    return float(found[1]) * SECONDS[found[2]]


def _positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < 1e6:
            return value
    raise ArgumentTypeError(f"{text!r} is no number above 0")


def _count(text: str) -> int:
    with suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise ArgumentTypeError(f"{text!r} is no whole number above 0")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ArgumentTypeError(f"{text!r} is no header: write 'Name: value'")
    return name.strip(), value.strip()


def _threshold(text: str) -> Threshold:
    try:
        return Threshold.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
