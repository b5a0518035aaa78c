"""What a writer is told of its transaction."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["WriteOutcome"]


class WriteOutcome(StrEnum):
    """What the writer was told of one transaction."""

    COMMITTED = "committed"
    NOT_STORED = "not_stored"
    UNKNOWN = "unknown"
    ROLLED_BACK = "rolled_back"
