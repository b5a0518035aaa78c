"""What a batch of slices has written, as far as others must know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CachedEntry", "WrittenSlices"]

CachedEntry = tuple[str, int, str, int]
"""(user, post, author, number of the follow)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSlices:
    """What a batch of slices has written.

    entries  rows that the caches of feeds are to hear of, also where an earlier try has stored them
    as_of    the lowest transaction that the statement which found them may not have seen
    users    whose caches are to be filled again
    authors  whose own lists in the cache are to be filled again
    grown    users whose entries may have outgrown their window
    count    entries written or deleted
    again_in seconds after which the batch is to be tried again, because something else comes first
    """

    entries: Sequence[CachedEntry] = ()
    as_of: int = 0
    users: Sequence[str] = ()
    authors: Sequence[str] = ()
    grown: Sequence[str] = ()
    count: int = 0
    again_in: float = 0.0
