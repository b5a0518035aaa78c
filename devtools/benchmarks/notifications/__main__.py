"""`make bench-notifications`: notifications from POST to the provider, on stacks of their own, with all tables,
attempts, status log and status events on. Writes devtools/benchmarks/results/notifications.json; see
devtools/benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import django
import msgspec

from devtools.benchmarks import machine, report
from devtools.localstack import LocalStack
from devtools.provider.client import ProviderProcess, provider_process

if TYPE_CHECKING:
    from devtools.benchmarks.notifications.parts import NotificationBench

UNLIMITED = ("accept", "batch", "deliver", "latency", "schedule")
LIMITED = ("pace", "shares")
NO_LIMIT = 1_000_000


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parts = (*UNLIMITED, *LIMITED)
    parser = argparse.ArgumentParser(prog="make bench-notifications", description=__doc__)
    parser.add_argument("parts", nargs="*", type=report.one_of(parts), help="default: all of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--into", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    wanted = options.parts or parts
    groups = [[part for part in group if part in wanted] for group in (UNLIMITED, LIMITED)]
    if options.into:
        [chosen] = [group for group in groups if group]
        found = _measure(chosen, 100 if chosen[0] in LIMITED else NO_LIMIT, options.seconds)
        Path(options.into).write_bytes(msgspec.json.encode(found))
        return 0
    figures: list[report.BenchFigure] = []
    described: dict[str, object] = {}
    for group in filter(None, groups):
        # A process each: Django's settings are of one stack.
        found = _by_another(group, options.seconds)
        described, figures = found.machine, [*figures, *found.figures]
    report.show("Notifications", figures)
    report.write("notifications", described, figures)
    return report.exit_code(figures)


class _Found(msgspec.Struct):
    machine: dict[str, object]
    figures: list[report.BenchFigure]


def _by_another(parts: Sequence[str], seconds: float) -> _Found:
    with tempfile.NamedTemporaryFile() as into:
        command = [sys.executable, "-m", "devtools.benchmarks.notifications", *parts]
        subprocess.run(  # noqa: S603  (ourselves)
            [*command, "--seconds", str(seconds), "--into", into.name], check=True
        )
        return msgspec.json.decode(Path(into.name).read_bytes(), type=_Found)


def _measure(parts: Sequence[str], limit: int, seconds: float) -> _Found:
    figures: list[report.BenchFigure] = []
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "arrivals")
        with provider_process(log=str(log), forget=True) as provider:
            environment = {
                "PROVIDERS": json.dumps(_providers(provider)),
                "RATE_LIMIT_PER_CHANNEL": str(limit),
            }
            with LocalStack.ephemeral(own_servers=True, extra_env=environment) as stack:
                os.environ.update(stack.env | environment | {"LOG_LEVEL": "ERROR"})
                django.setup()
                described = machine.describe(stack.env["DATABASE_URL"])
                bench = _bench(stack, provider, log, seconds)
                for part in parts:
                    for figure in getattr(bench, part)():
                        report.show(part, [figure])
                        figures.append(figure)
    return _Found(described, figures)


def _bench(
    stack: LocalStack, provider: ProviderProcess, log: Path, seconds: float
) -> NotificationBench:
    from django.conf import settings  # noqa: PLC0415  (made above)

    from devtools.benchmarks.backbone.stage import Stage  # noqa: PLC0415
    from devtools.benchmarks.notifications.parts import NotificationBench  # noqa: PLC0415

    settings.RATE_LIMIT_PER_CHANNEL = int(os.environ["RATE_LIMIT_PER_CHANNEL"])
    return NotificationBench(Stage(stack), provider, log, seconds)


def _providers(provider: ProviderProcess) -> dict[str, object]:
    """One for each channel, so that one of them can hang."""
    base = provider.url.removesuffix("/send")
    return {
        channel: {"kind": "webhook", "url": f"{base}/{channel}", "channels": [channel]}
        for channel in ("sms", "email", "push")
    }


if __name__ == "__main__":
    sys.exit(main())
