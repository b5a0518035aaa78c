"""What pip-audit finds in the locks, compared with the list."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from devtools.dependency_audit.allowed import Allowed

__all__ = ["LOCKS", "OSV", "Audit", "NotAsked", "Weakness", "ask", "judge"]

ROOT = Path(__file__).resolve().parents[2]
LOCKS = tuple(
    ROOT / name for name in ("requirements.txt", "requirements-local.txt", "requirements-dev.txt")
)
OSV = "https://api.osv.dev/v1/query"
ANSWER_SECONDS = 15
ALL_SECONDS = 300


class NotAsked(Exception):
    """The service did not answer for all packages; the message says why. Nothing is known then."""


@dataclass(frozen=True, slots=True)
class Weakness:
    """One that is known of a package in a lock. `names`: all that it is called by."""

    package: str
    version: str
    names: Sequence[str]
    mended_in: Sequence[str]

    def __str__(self) -> str:
        mended = f"mended in {', '.join(self.mended_in)}" if self.mended_in else "not mended yet"
        return f"{self.package} {self.version}: {', '.join(self.names)}, {mended}"


@dataclass(frozen=True, slots=True)
class Audit:
    """found    weaknesses that no entry covers today
    expired  the same, of which an entry has come to its end
    allowed  covered ones
    idle     entries that are about nothing that was found
    """

    found: Sequence[Weakness]
    expired: Sequence[tuple[Weakness, Allowed]]
    allowed: Sequence[tuple[Weakness, Allowed]]
    idle: Sequence[Allowed]


def ask(locks: Sequence[Path] = LOCKS, *, service: str = OSV) -> Sequence[Weakness]:
    """Every known weakness of the locked packages, each once. Raises NotAsked."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip"),
        *("--vulnerability-service", "osv", "--osv-url", service),
        *("--format", "json", "--progress-spinner", "off", "--timeout", str(ANSWER_SECONDS)),
        *(part for lock in locks for part in ("--requirement", str(lock))),
    ]
    try:
        ended = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=ALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotAsked(f"{service} has not answered for all packages in {ALL_SECONDS} s") from None
    try:
        answered = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = ended.stderr.strip().splitlines() or ["nothing"]
        raise NotAsked(f"{service}: {said[-1][:300]}") from None
    passed_over = [each["name"] for each in answered if "skip_reason" in each]
    if passed_over or not answered:
        raise NotAsked(f"{service} knows nothing of {', '.join(passed_over) or 'any package'}")
    return sorted(set(_weaknesses(answered)), key=str)


def _weaknesses(answered: Sequence[dict[str, object]]) -> Iterator[Weakness]:
    for package in answered:
        found = package["vulns"]
        assert isinstance(found, list)
        for each in found:
            yield Weakness(
                str(package["name"]),
                str(package["version"]),
                tuple(sorted({each["id"], *each["aliases"]})),
                tuple(each["fix_versions"]),
            )


def judge(weaknesses: Sequence[Weakness], entries: Sequence[Allowed], *, today: date) -> Audit:
    """What is left of them after the list."""
    found, expired, allowed = [], [], []
    idle = list(entries)
    for weakness in weaknesses:
        covering = [each for each in entries if each.covers(weakness.names, weakness.package)]
        idle = [each for each in idle if each not in covering]
        now = [each for each in covering if each.since <= today <= each.until]
        if now:
            allowed.append((weakness, now[0]))
        elif covering:
            expired.append((weakness, covering[0]))
        else:
            found.append(weakness)
    return Audit(found, expired, allowed, idle)
