"""The result of a check of a server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CheckResult", "Level", "judge"]


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the report. `risk` is the name by which a violation can be accepted, empty if it
    cannot be; `means` says what can be lost and what to do, empty if all is well."""

    level: Level
    server: str
    found: str
    risk: str = ""
    means: str = ""


def judge(server: str, found: str, *, good: bool, risk: str, means: str) -> CheckResult:
    """Fine if it is `good`, otherwise an error."""
    if good:
        return CheckResult(Level.OK, server, found, risk)
    return CheckResult(Level.ERROR, server, found, risk, means)
