"""A page of a feed, for many readers at once: the cache is looked at, one trip to PostgreSQL brings
what makes it right and everything for those that are not cached, and what was read is stored."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from feeds import cache
from feeds.cache import Kept
from feeds.reading.hits import Hits
from feeds.reading.questions import FeedPage, FeedQuestion
from feeds.reading.reads import Reads
from restapi.lookup import Ask, LookupSteps

__all__ = ["pages"]


def pages(questions: Sequence[FeedQuestion], *, deep: bool) -> LookupSteps[list[FeedPage | None]]:
    """A page for each. Below the floor of stored entries a page costs as much as its reader follows
    authors: with `deep` it is read all the same, without it is None."""
    token = os.urandom(8)
    kept = yield from _look(questions, token)
    there = kept or {}
    hits = Hits({each: there[each.reader] for each in questions if _may_hit(each, there)})
    reads = Reads(each for each in questions if each not in hits.kept)
    asked = hits.statements, reads.statements
    results = (yield Ask([*asked[0], *asked[1]])) if any(asked) else []
    found: dict[FeedQuestion, FeedPage | None] = {**hits.pages(results[: len(asked[0])])}
    reads.learn(results[len(asked[0]) :])
    again, to_store = yield from _read_again([q for q in hits.kept if q not in found], token)
    if kept is not None and (feeds := [*reads.feeds(), *to_store]):
        yield Ask(commands=[cache.store(feeds, token=token)])
    for read in (reads, again):
        for question in read.questions:
            page = read.page(question)
            found[question] = page or ((yield from read.deep_page(question)) if deep else None)
    return [found[question] for question in questions]


def _look(
    questions: Iterable[FeedQuestion], token: bytes
) -> LookupSteps[Mapping[str, Kept] | None]:
    """What is cached of whom, with a mark of ours where nothing is and it will be read; None: there
    is no cache."""
    fills = dict.fromkeys(each.reader for each in questions if each.is_newest)
    others = {each.reader for each in questions if each.after is None}.difference(fills)
    looks = [(list(fills), token), (list(others), b"")]
    asked = [(readers, mark) for readers, mark in looks if readers]
    if not cache.is_on() or not asked:
        return None
    replies = yield Ask(commands=[cache.look(readers, token=mark) for readers, mark in asked])
    if not _is_clear(replies):
        return None
    readers = chain.from_iterable(readers for readers, _ in asked)
    values = zip(readers, chain.from_iterable(replies), strict=True)
    return {reader: Kept.of(value) for reader, value in values if value}


def _may_hit(question: FeedQuestion, kept: Mapping[str, Kept]) -> bool:
    feed = kept.get(question.reader)
    return feed is not None and question.after is None and question.range.edge > feed.floor


def _read_again(
    missed: Sequence[FeedQuestion], token: bytes
) -> LookupSteps[tuple[Reads, Sequence[tuple[str, bytes]]]]:
    """Those whose cached feed did not do, and what is to be stored in place of it: nothing without a
    clear reply to its mark. A mark that is set late would hide that a slice has been finished before."""
    reads, is_marked = Reads(missed), False
    if marked := sorted({each.reader for each in missed if each.is_newest}):
        is_marked = _is_clear((yield Ask(commands=[cache.mark(marked, token=token)])))
    reads.learn((yield Ask(reads.statements)) if missed else [])
    return reads, reads.feeds() if is_marked else []


def _is_clear(replies: Sequence[object] | None) -> bool:
    """Whether every command is done, and was before we go on."""
    return replies is not None and not any(isinstance(reply, Exception) for reply in replies)
