"""The command line: up, down, status, logs, manage, run, restart, exec."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

from devtools.localstack import background, foreground, summary
from devtools.localstack.errors import LocalStackError
from devtools.localstack.log_files import LINES, show_logs
from devtools.localstack.processes import PLAN, Plan
from devtools.localstack.state import StackState, clone_state
from devtools.localstack.supervisor import supervise
from devtools.localstack.terminal import complain

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. Errors are one message on stderr and exit code 1."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except LocalStackError as error:
        complain(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    state = StackState(options.state.absolute()) if options.state else clone_state()
    commands: dict[str, Callable[[], int]] = {
        "up": lambda: background.up(state, options.plan),
        "down": lambda: background.down(state, wipe=options.wipe),
        "restart": lambda: background.restart(state, options.name),
        "status": lambda: summary.status(state),
        "manage": lambda: foreground.manage(state, options.words),
        "run": lambda: foreground.run_processes(state, options.names, plan=_plan(options.plan)),
        "logs": lambda: show_logs(
            state, options.names, follow=options.follow, lines=options.lines, raw=options.raw
        ),
        "supervise": lambda: supervise(state, _plan(options.plan), options.progress),
        "exec": lambda: foreground.execute(
            options.cmd,
            plan=_plan(options.plan),
            servers_only=options.servers_only,
            own_servers=options.own_servers,
            broker=options.kafka,
        ),
    }
    return commands[options.command]()


def _plan(name: str | None) -> Plan:
    """Another table than ours, as module:attribute; tests use it."""
    if name is None:
        return PLAN
    module, _, attribute = name.partition(":")
    plan = getattr(importlib.import_module(module), attribute)
    assert isinstance(plan, Plan)
    return plan


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devtools.localstack", description=__doc__)
    parser.add_argument("--state", type=Path, help="state directory (default: .localstack)")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start what is missing and keep it running")
    down = commands.add_parser("down", help="stop what `up` started")
    down.add_argument("--wipe", action="store_true", help="delete its data too")
    commands.add_parser("status", help="show what runs; exit code 0 if all is well")
    logs = commands.add_parser("logs", help="show the logs, merged by time")
    logs.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    logs.add_argument("-f", "--follow", action="store_true", help="follow new lines until Ctrl-C")
    logs.add_argument("-n", "--lines", type=_count, default=LINES, help=f"default: {LINES}")
    logs.add_argument(
        "--raw", action="store_true", help="show the lines of the files: JSON, whole ids"
    )
    manage = commands.add_parser("manage", help="run manage.py on the running stack")
    manage.add_argument("words", nargs="+", metavar="-- WORD")
    run = commands.add_parser(
        "run", help="run our processes in the foreground, on the running servers"
    )
    run.add_argument("names", nargs="*", metavar="NAME", help="default: all but web")
    restart = commands.add_parser("restart", help="restart one server or process")
    restart.add_argument("name", metavar="NAME")
    execute = commands.add_parser("exec", help="run a command inside a stack of its own")
    execute.add_argument("--servers-only", action="store_true", help="without our processes")
    execute.add_argument("--own-servers", action="store_true", help="ignore external servers")
    execute.add_argument("--kafka", choices=("auto", "apache", "tansu"), default="auto")
    execute.add_argument("cmd", nargs="+", metavar="-- CMD")
    supervise_ = commands.add_parser("supervise")  # what `up` leaves running; not for people
    supervise_.add_argument("progress", type=int)
    return parser
