"""Send orders, notifications, or posts and reads of feeds, to a running system, and say what became of them."""

from __future__ import annotations

import argparse
import json
import random
import resource
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventsite.settings.env import environment
from loadtest.arguments import count, header, positive, seconds, share, threshold
from loadtest.client import Client
from loadtest.feeds import generate_feeds
from loadtest.feeds_report import METRICS_OF_FEEDS, FeedsPlan, FeedsReport, progress_of_feeds
from loadtest.generator import GeneratorPlan, generate
from loadtest.machine import describe_machine
from loadtest.notifications import look_for_all, send_notifications
from loadtest.notifications_report import (
    METRICS_OF_NOTIFICATIONS,
    NotificationsPlan,
    NotificationsReport,
    NotificationsTally,
    progress_of_notifications,
)
from loadtest.page import render
from loadtest.payloads import KINDS
from loadtest.provider import ProviderLost, provider
from loadtest.sending import ARRIVALS, RunPlan
from loadtest.summary import LoadSummary, progress_of_orders
from loadtest.target import NotOurs, ask_target
from loadtest.thresholds import METRICS, METRICS_OF_CHECK, ONLY_BY_DATABASE, Threshold
from loadtest.verify import verify_by_database, verify_by_http
from loadtest.words import Plan, RunReport, Tally, progress
from outbox.process.gc_tuning import tune_gc

EXAMPLE = """examples:
  manage.py generate_load --rate 300 --duration 1m --html load.html --fail-if "p99>250ms" --fail-if "lost>0"
  manage.py generate_load --closed 32 --duration 20s           find the capacity, then measure at 50 to 80 %% of it
  manage.py generate_load --rate 100 --duration 5m --url https://orders.example --header "X-API-Key: …" --fail-if "missing>0"
  manage.py generate_load --profile feeds --rate 300 --duration 1m --fail-if "lost>0" --fail-if "e2e_p99>300ms"
  manage.py generate_load --profile notifications --rate 100 --duration 1m --provider 9900 --fail-if "lost>0"
                                                               the stack has WEBHOOK_URL=http://127.0.0.1:9900

exit codes: 0; 1 when a threshold is crossed; 2 for arguments that make no sense and for an address
where our program does not answer: then nothing was sent
"""
WHERE = " Start the stack with `make up`, or name the address with --url."
INSTEAD = {"lost": "missing", "duplicates": "answered_twice"}  # what HTTP shows of them


def _add_feeds(parser: ArgumentParser) -> None:
    parser.add_argument("--users", type=count, default=500, help="of --profile feeds")
    parser.add_argument(
        "--follows",
        type=count,
        default=10,
        help="how many authors each user follows (--profile feeds)",
    )
    parser.add_argument(
        "--sample",
        type=count,
        default=3,
        help="followers in whose feeds each accepted post is checked (--profile feeds)",
    )


def _add_notifications(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--batch",
        type=count,
        default=1,
        help="notifications in a request (--profile notifications)",
    )
    parser.add_argument(
        "--provider",
        type=count,
        metavar="PORT",
        help="act as their provider on this port, and check that each arrives",
    )
    parser.add_argument(
        "--provider-fails",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="share of its calls that it answers with 503: 0.1 for one in ten",
    )


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
        model.add_argument("--rate", type=positive, help="orders a second, by the clock")
        model.add_argument(
            "--closed", type=count, metavar="N", help="N connections at full speed instead"
        )
        parser.add_argument(
            "--profile",
            choices=("orders", "feeds", "notifications"),
            default="orders",
            help="what is sent: orders, feeds (posts, reads and follows) or notifications",
        )
        _add_feeds(parser)
        _add_notifications(parser)
        parser.add_argument("--duration", type=seconds, default=60.0, help="90, 90s, 5m, 1h")
        parser.add_argument("--url", help="default: the web process of this machine, on PORT")
        parser.add_argument("--customers", type=count, default=5000)
        parser.add_argument("--seed", type=int, help="the same seed sends the same orders")
        parser.add_argument("--kind", choices=KINDS, default="orders")
        parser.add_argument(
            "--arrivals",
            choices=ARRIVALS,
            default="poisson",
            help="poisson: like independent callers; even: at equal intervals",
        )
        parser.add_argument("--max-in-flight", type=count, default=2000, metavar="N")
        parser.add_argument("--timeout", type=seconds, default=30.0, help="for one answer")
        parser.add_argument(
            "--header", action="append", default=[], type=header, metavar="'Name: value'"
        )
        parser.add_argument(
            "--check",
            choices=("database", "http", "none"),
            help="where accepted orders are checked; default: database, with --url http",
        )
        parser.add_argument("--settle", type=seconds, default=60.0, help="wait for effects")
        parser.add_argument("--json", type=Path, metavar="FILE")
        parser.add_argument("--html", type=Path, metavar="FILE")
        parser.add_argument(
            "--fail-if",
            action="append",
            default=[],
            type=threshold,
            metavar="'p99>250ms'",
            help=f"exit 1 if so; may be repeated; metrics: {', '.join(METRICS).replace('%', '%%')}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report: RunReport[Any, Any]
        match options["profile"]:
            case "feeds":
                report = self._feeds(options)
            case "notifications":
                report = self._notifications(options)
            case _:
                report = self._orders(options)
        self._say(report.in_words())
        if options["json"]:
            options["json"].write_text(json.dumps(report.as_dict(), indent=1) + "\n")
        if options["html"] and isinstance(report, LoadSummary):
            options["html"].write_text(render(report))
        if crossed := report.crossed():
            raise CommandError("Crossed: " + ", ".join(each.text for each in crossed))

    def _feeds(self, options: dict[str, Any]) -> FeedsReport:
        _refuse_of_orders(options, METRICS_OF_FEEDS)
        plan = _plan(FeedsPlan, options)
        self._ask(plan, f"feeds of {plan.users} users, seed {plan.seed}, run {plan.run}")
        tally = generate_feeds(plan, on_second=self._progress(progress_of_feeds))
        return FeedsReport(plan, tally, describe_machine(), options["fail_if"])

    def _notifications(self, options: dict[str, Any]) -> NotificationsReport:
        _refuse_of_orders(options, METRICS_OF_NOTIFICATIONS)
        plan = _plan(NotificationsPlan, options)
        self._ask(plan, f"notifications, seed {plan.seed}, run {plan.run}")
        tally = self._sent(plan, options)
        return NotificationsReport(plan, tally, describe_machine(), options["fail_if"])

    def _sent(self, plan: NotificationsPlan, options: dict[str, Any]) -> NotificationsTally:
        port, fails = options["provider"], options["provider_fails"]
        try:
            with provider(port, fails=fails, seed=plan.seed) if port else nullcontext() as arrivals:
                tally = send_notifications(
                    plan, on_second=self._progress(progress_of_notifications)
                )
                look_for_all(plan, tally)
                if arrivals is not None:
                    tally.note_arrivals(arrivals())
        except ProviderLost as error:
            raise CommandError(str(error), returncode=2) from None
        return tally

    def _ask(self, plan: RunPlan, words: str) -> None:
        """Whether our program answers there, and room for the connections."""
        try:
            ask_target(plan.url, headers=plan.headers)
        except NotOurs as error:
            raise CommandError(f"{error} Nothing was sent.{WHERE}", returncode=2) from None
        _allow_connections(plan.closed or plan.max_in_flight)
        self._say(f"{plan.url}: {words}")
        tune_gc()  # a collection through all that is loaded would count as latency

    def _orders(self, options: dict[str, Any]) -> LoadSummary:
        plan = _plan(GeneratorPlan, options)
        check = options["check"] or ("http" if options["url"] else "database")
        _refuse_unknowable(options["fail_if"], check)
        for path in filter(None, (options["json"], options["html"])):
            _refuse_unwritable(path)
        self._ask(plan, f"kind {plan.kind}, seed {plan.seed}, run {plan.run}")
        machine = describe_machine()
        tally = generate(plan, on_second=self._progress(progress_of_orders))
        verdict = None
        if check == "database":
            verdict = verify_by_database(tally, plan.run, within=options["settle"])
        elif check == "http":
            verdict = verify_by_http(tally, plan.url, timeout=plan.timeout, headers=plan.headers)
        return LoadSummary(plan, tally, machine, options["fail_if"], verdict)

    def _progress(self, line: Callable[[Tally], str]) -> Callable[[Tally], None]:
        return progress(self._say, line, terminal=self.stdout.isatty())

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _plan(profile: type[Plan], options: dict[str, Any]) -> Plan:
    """Every field of the plan that is an option, and those whose option has another name or default."""
    url = options["url"] or f"http://127.0.0.1:{environment().port}"
    headers = dict(options["header"])
    try:
        Client(url, headers=headers)
    except ValueError as error:
        raise CommandError(str(error), returncode=2) from None
    seed = options["seed"]
    given = {each.name: options[each.name] for each in fields(profile) if each.name in options}
    own = {
        "url": url.rstrip("/"),
        "seconds": options["duration"],
        "rate": options["rate"] or 0.0,
        "closed": options["closed"] or 0,
        "seed": random.SystemRandom().randrange(10**6) if seed is None else seed,
        "headers": headers,
    }
    return profile(**given | own)


def _refuse_unknowable(thresholds: list[Threshold], check: str) -> None:
    """Before the load, not after it."""
    for each in thresholds:
        needs_database = each.metric.startswith("e2e_") or each.metric in ONLY_BY_DATABASE
        needs_check = needs_database or each.metric in METRICS_OF_CHECK
        if (needs_database and check != "database") or (needs_check and check == "none"):
            instead = INSTEAD.get(each.metric) if check == "http" else None
            raise CommandError(
                f"{each.text!r} cannot be known with --check {check}: use --check database"
                " where the settings name the database of the system under load"
                + (f", or {instead}, which HTTP shows." if instead else "."),
                returncode=2,
            )


def _refuse_of_orders(options: dict[str, Any], metrics: Sequence[str]) -> None:
    """What only a load of orders has. `metrics`: those of the profile."""
    profile = f"--profile {options['profile']}"
    if options["html"]:
        raise CommandError(f"{profile} has no HTML page; use --json.", returncode=2)
    unknown = [each for each in options["fail_if"] if each.key not in metrics]
    if unknown:
        raise CommandError(
            f"{unknown[0].text!r} is not a threshold of {profile}; metrics: {', '.join(metrics)}.",
            returncode=2,
        )
    if options["json"]:
        _refuse_unwritable(options["json"])


def _refuse_unwritable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.", returncode=2) from None


def _allow_connections(number: int) -> None:
    """Raise the soft limit of open files, as far as it may be."""
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = number + 200
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
