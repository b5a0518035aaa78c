"""`make chaos`: the scenarios on a stack of their own, one table, exit code 1 if anything failed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import django
from rich.console import Console

from devtools.localstack import LocalStack, LocalStackError
from devtools.testing.processes import free_port


def main() -> int:
    """0: every promise kept (with --mutants: every mutant seen), 1: not, 130: interrupted."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios or mutants; default: all")
    parser.add_argument("--quick", action="store_true", help="a part of them, shorter, for CI")
    parser.add_argument("--mutants", action="store_true", help="break one guard at a time")
    parser.add_argument(
        "--load", type=float, default=1.0, help="share of the load, for a machine that is busy"
    )
    parser.add_argument("--logs", help="copy the logs of all processes into this directory")
    options = parser.parse_args()
    os.environ.setdefault("LOG_LEVEL", "INFO")
    console = Console(width=None if sys.stdout.isatty() else 160, emoji=False)
    try:
        with tempfile.TemporaryDirectory(prefix="eventsite-chaos-") as name:
            return _on_a_stack(Path(name), options, console)
    except LocalStackError as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130


def _on_a_stack(directory: Path, options: argparse.Namespace, console: Console) -> int:
    # Where each scenario of notifications has a provider of its own, which may die and come back.
    url = f"http://127.0.0.1:{free_port()}/send"
    environment = {
        "DJANGO_SETTINGS_MODULE": "devtools.chaos.settings",
        "CHAOS_DIRECTORY": str(directory),
        "PROVIDERS": json.dumps({"main": {"kind": "webhook", "url": url, "timeout": 2.0}}),
    }
    with LocalStack.ephemeral(own_servers=True, extra_env=environment) as stack:
        os.environ.update(stack.env | {"LOG_LEVEL": "CRITICAL"})
        django.setup()
        from devtools.chaos.program import run  # noqa: PLC0415  (needs the settings made above)

        try:
            return run(stack, directory, options, console)
        finally:
            if options.logs:
                shutil.copytree(stack.state.logs, options.logs, dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
