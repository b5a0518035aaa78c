"""What is asked of a feed, and a page of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from feeds import cache
from feeds.reading.statements import NEWEST, Range

__all__ = ["FeedPage", "FeedQuestion", "merged", "newer_page", "page_of"]


class FeedQuestion:
    """A page: the newest but `offset`, or those before a post, or the next newer after one. Two are
    never the same.

    reach      ids that must be known: one more says whether there are older ones
    range      what the page lies in; of `after`, what comes below it
    is_newest  whether it begins with the newest and can be all from a cached feed: reading it fills
               the cache
    """

    __slots__ = ("after", "before", "is_newest", "limit", "offset", "range", "reach", "reader")

    def __init__(
        self,
        reader: str,
        limit: int,
        offset: int = 0,
        before: int | None = None,
        after: int | None = None,
    ) -> None:
        self.reader, self.limit, self.offset = reader, limit, offset
        self.before, self.after = before, after
        self.reach = offset + limit + 1 if after is None else 1
        edge = NEWEST if before is None else min(before, NEWEST)
        if after is not None:
            edge = min(after + 1, NEWEST)
        self.range = Range(reader, edge)
        is_page = before is None and after is None
        self.is_newest = is_page and self.reach <= cache.IDS_AT_MOST

    @property
    def newer(self) -> Range:
        """Above which post a page of `after` lies."""
        assert self.after is not None
        return Range(self.reader, min(self.after, NEWEST))


class FeedPage(msgspec.Struct, frozen=True):
    """Ids, newest first; `next_before` is None where nothing older is; `hit`: by the cache."""

    ids: Sequence[int]
    next_before: int | None
    hit: bool = False


def merged(ids: list[int], others: Iterable[Sequence[int]]) -> list[int]:
    """Lists that are newest first as one, each id once. (Sorting finds what is in order already.)"""
    together = list(ids)
    for other in others:
        together += other
    if len(together) == len(ids):
        return ids
    together.sort(reverse=True)
    return list(dict.fromkeys(together))


def page_of(
    question: FeedQuestion, ids: Sequence[int], floor: int, *, hit: bool
) -> FeedPage | None:
    """The page, if what is known (newest first, complete down to the floor) reaches so far."""
    if floor and (len(ids) < question.reach or ids[question.reach - 1] < floor):
        return None
    last = question.offset + question.limit
    shown = ids[question.offset : last]
    more = len(ids) > last and shown
    return FeedPage(shown, shown[-1] if more else None, hit)


def newer_page(question: FeedQuestion, ids: Sequence[int], *, older: bool) -> FeedPage:
    """Of ids above `after`, the oldest first; `older`: whether there is something at or below it."""
    shown = ids[: question.limit][::-1]
    return FeedPage(shown, shown[-1] if older and shown else None)
