"""The outcome of a transaction, as its writer sees it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["WriteOutcome"]


class WriteOutcome(StrEnum):
    """The outcome of one transaction, as its writer saw it."""

    COMMITTED = "committed"
    NOT_STORED = "not_stored"
    UNKNOWN = "unknown"
    ROLLED_BACK = "rolled_back"
