"""`make upgrade-test`: play a rolling upgrade from the commit in UPGRADE_FROM, and back.

Exit code 1 if anything was lost, done twice or done out of order.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from devtools.demo.report import print_report
from devtools.localstack import LocalStack, LocalStackError, Plan
from devtools.localstack.ports import Ports
from devtools.upgrade.fleet import Fleet
from devtools.upgrade.release import commit_to_upgrade_from, earlier, today
from devtools.upgrade.run import play
from devtools.upgrade.verdict import conclusion, lines_of


def main() -> int:
    """0: every promise was kept, 1: one was not or something did not start, 130: interrupted."""
    parser = argparse.ArgumentParser(prog="make upgrade-test", description=__doc__)
    parser.add_argument("--from", dest="commit", help="default: the hash in UPGRADE_FROM")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase")
    parser.add_argument("--logs", help="copy the logs of all processes into this directory")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140, emoji=False)
    try:
        with tempfile.TemporaryDirectory(prefix="eventsite-upgrade-") as folder:
            return _played(options, Path(folder), console)
    except LocalStackError as error:
        console.print(f"[red]{error}[/]", markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130


def _played(options: argparse.Namespace, folder: Path, console: Console) -> int:
    commit = options.commit or commit_to_upgrade_from()
    console.print(f"from {commit[:12]} to the code of this folder")
    old, new = earlier(commit, folder, console.print), today()
    # Everything that processes do is in their logs.
    environment = {**new.settings, "LOG_LEVEL": "INFO"}
    with LocalStack.ephemeral(own_servers=True, plan=Plan(), extra_env=environment) as stack:
        ports = Ports(stack.state.ports)
        fleets = Fleet(stack, old, ports), Fleet(stack, new, ports)
        try:
            seen = play(stack, *fleets, seconds=options.seconds, say=console.print)
        finally:
            for fleet in fleets:
                fleet.stop(fleet.names)
            if options.logs:
                shutil.copytree(stack.state.logs, options.logs, dirs_exist_ok=True)
    lines = lines_of(seen)
    return 0 if print_report(console, lines, conclusion(lines)) else 1


if __name__ == "__main__":
    sys.exit(main())
