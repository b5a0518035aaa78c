"""`python -m devtools.dependency_audit [--warn]`; exit 0: nothing is known, 1: something is, 2: nobody could
say. With --warn always 0."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from devtools.dependency_audit.allowed import LIST, ListError, read_allowed
from devtools.dependency_audit.run import LOCKS, OSV, Audit, NotAsked, ask, judge

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Print what is known, one line each; the exit code."""
    parser = argparse.ArgumentParser(prog="make audit-deps", description=__doc__)
    parser.add_argument("--warn", action="store_true", help="exit 0 whatever is found")
    parser.add_argument("--service", default=OSV, help="an address that answers as OSV does")
    parser.add_argument("--list", type=Path, default=LIST, help=argparse.SUPPRESS)
    parser.add_argument("locks", nargs="*", type=Path, default=LOCKS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    code = _audit(given.locks, given.service, given.list)
    return 0 if given.warn else code


def _audit(locks: list[Path], service: str, entries: Path) -> int:
    try:
        audit = judge(
            ask(locks, service=service), read_allowed(entries), today=datetime.now(UTC).date()
        )
    except NotAsked as error:
        print(f"WARNING: the dependencies could not be audited: {error}.", file=sys.stderr)  # noqa: T201
        return 2
    except ListError as error:
        print(f"WARNING: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for line in _lines(audit):
        print(line)  # noqa: T201
    return 1 if audit.found or audit.expired else 0


def _lines(audit: Audit) -> Iterator[str]:
    for weakness in audit.found:
        yield f"WARNING: {weakness}"
    for weakness, entry in audit.expired:
        yield f"WARNING: {weakness}; it was allowed until {entry.until}: {entry.reason}"
    for weakness, entry in audit.allowed:
        yield f"allowed until {entry.until}: {weakness}: {entry.reason}"
    for entry in audit.idle:
        yield f"{entry.id} of {entry.package} is not there any more: take it out of the list."
    if not audit.found and not audit.expired:
        yield "No weakness is known of what the locks name, but for what is allowed."


if __name__ == "__main__":
    sys.exit(main())
