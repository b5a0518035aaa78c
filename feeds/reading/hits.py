"""Pages that are made of cached feeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from feeds.cache import Kept
from feeds.reading import changes, statements
from feeds.reading.questions import FeedPage, FeedQuestion, merged, page_of
from feeds.reading.statements import OfAuthor
from outbox.database.round_trips import Row, Statement

__all__ = ["Hits"]


class Hits:
    """Questions whose readers have a cached feed."""

    def __init__(self, kept: Mapping[FeedQuestion, Kept]) -> None:
        self.kept = kept
        self._large = {
            question: [
                OfAuthor(author, question.range.edge, question.reach) for author in feed.merged
            ]
            for question, feed in kept.items()
            if feed.merged
        }
        self._asked: Iterable[OfAuthor] = dict.fromkeys(chain.from_iterable(self._large.values()))

    @property
    def statements(self) -> Sequence[Statement]:
        """What has changed, and what the large authors have posted, for all at once."""
        if not self._asked:
            return (changes.CHANGES.statement(),) if self.kept else ()
        return changes.CHANGES.statement(), statements.of_authors_statement(list(self._asked))

    def pages(self, results: Sequence[Sequence[Row]]) -> dict[FeedQuestion, FeedPage]:
        """Those that can be made: whose feed is to be believed and reaches far enough."""
        if not results:
            return {}
        changes.CHANGES.learn(results[0])
        posts = statements.of_authors(results[1], list(self._asked)) if self._asked else {}
        made = {}
        for question, feed in self.kept.items():
            theirs = map(posts.__getitem__, self._large.get(question, ()))
            page = page_of(question, _ids(question, feed, theirs), feed.floor, hit=True)
            # Afterwards: another thread may just have forgotten a deletion, and with it the feed.
            if page is not None and changes.CHANGES.believes(feed, question.reader):
                made[question] = page
        return made


def _ids(question: FeedQuestion, feed: Kept, of_large: Iterable[Sequence[int]]) -> Sequence[int]:
    """Newest first, without what was deleted since."""
    ids = feed.ids
    if question.before is not None:
        ids = [id_ for id_ in ids if id_ < question.before]
    deleted = changes.CHANGES.deleted
    if not deleted.isdisjoint(ids):
        ids = [id_ for id_ in ids if id_ not in deleted]
    return merged(ids[: question.reach], of_large)
