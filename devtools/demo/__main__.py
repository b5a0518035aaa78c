"""`make demo`: a stack of its own, the run, the table; exit code 1 if any promise was broken."""

from __future__ import annotations

import argparse
import json
import os
import sys

import django
from rich.console import Console

from devtools.localstack import LocalStack, LocalStackError
from devtools.testing.processes import free_port
from outbox.process.gc_tuning import tune_gc


def main() -> int:
    """0: every line ok, 1: one is not or the stack did not start, 130: interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--orders", type=int, default=2000, help="orders in each half")
    parser.add_argument("--rate", type=float, default=200.0, help="orders a second")
    options = parser.parse_args()
    # Logs of the processes go to files; the terminal is for the account.
    os.environ.setdefault("LOG_LEVEL", "INFO")
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        port = free_port()
        environment = {
            "DJANGO_SETTINGS_MODULE": "devtools.probe.settings",
            "PROVIDERS": json.dumps(
                {"provider": {"kind": "webhook", "url": f"http://127.0.0.1:{port}/send"}}
            ),
        }
        with LocalStack.ephemeral(extra_env=environment, keep_up=True) as stack:
            os.environ.update(
                stack.env | environment | {"LOG_LEVEL": "ERROR", "LOG_FORMAT": "console"}
            )
            django.setup()
            from devtools.demo.run import run  # noqa: PLC0415  (needs the settings made above)

            tune_gc()  # a collection through all that is loaded would count as latency
            plan = {"orders": options.orders, "rate": options.rate, "port": port}
            return 0 if run(stack, **plan, console=console) else 1
    except LocalStackError as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
