"""`make demo`: a stack of its own, the run, the table; exit code 1 if any promise was broken."""

from __future__ import annotations

import argparse
import os
import sys

import django
from rich.console import Console

from eventsite.localstack import LocalStack, LocalStackError
from outbox.collector import calm_down


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
        with LocalStack.ephemeral(extra_env={"PROBE": "1"}, keep_up=True) as stack:
            os.environ.update(stack.env | {"LOG_LEVEL": "ERROR"})
            django.setup()
            from eventsite.demo.run import run  # noqa: PLC0415  (needs the settings made above)

            calm_down()  # a collection through all that is loaded would count as latency
            return 0 if run(stack, orders=options.orders, rate=options.rate, console=console) else 1
    except LocalStackError as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
