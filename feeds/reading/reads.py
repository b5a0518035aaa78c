"""Pages that are read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from feeds import cache
from feeds.cache import new_feed
from feeds.reading import statements
from feeds.reading.questions import FeedPage, FeedQuestion, merged, newer_page, page_of
from feeds.reading.statements import Range
from outbox.database.round_trips import Row, Statement
from restapi.lookup import Ask, LookupSteps

__all__ = ["Reads"]

FILLED_WITH = 48  # ids at least that a fill reads: two pages of 20, and some that are deleted later
LARGE_AT_MOST = 50  # authors in a cached feed; who follows more of them is not cached


class Reads:
    """Questions that go to PostgreSQL: what is stored for their readers, down to the floor."""

    def __init__(self, questions: Iterable[FeedQuestion]) -> None:
        self.questions = list(dict.fromkeys(questions))
        self._asked: dict[Range, tuple[int, int]] = {}
        self._newer: dict[Range, int] = {}
        for question in self.questions:
            stored, of_large = self._asked.get(question.range, (0, 0))
            least = FILLED_WITH if question.is_newest and cache.is_on() else 0
            self._asked[question.range] = (
                max(stored, question.reach, least),
                max(of_large, question.reach),
            )
            if question.after is not None:
                most = self._newer.get(question.newer, 0)
                self._newer[question.newer] = max(most, question.limit)

    @property
    def statements(self) -> Sequence[Statement]:
        """One for all of them, and one for those that ask for what is newer."""
        if not self.questions:
            return ()
        sources = statements.sources_statement(self._asked)
        return (sources, statements.newer_statement(self._newer)) if self._newer else (sources,)

    def learn(self, results: Sequence[Sequence[Row]]) -> None:
        """Take the rows of each statement."""
        self._sources = statements.sources_of(results[0], self._asked) if results else {}
        self._above = statements.newer_of(results[1], self._newer) if self._newer else {}

    def page(self, question: FeedQuestion) -> FeedPage | None:
        """None: it reaches below the floor."""
        source = self._sources[question.range]
        ids = merged(source.stored, [source.merged])
        if question.after is None:
            return page_of(question, ids, source.floor, hit=False)
        floor, newer = self._above[question.newer]
        if question.newer.edge + 1 < floor or (newer and not ids and source.floor):
            return None
        return newer_page(question, newer, older=bool(ids))

    def deep_page(self, question: FeedQuestion) -> LookupSteps[FeedPage]:
        """The same when it does."""
        source = self._sources[question.range]
        above = [id_ for id_ in merged(source.stored, [source.merged]) if id_ >= source.floor]
        below = Range(question.reader, min(question.range.edge, source.floor))
        if question.after is None:
            missing = question.reach - len(above)
            [rows] = yield Ask([statements.below_the_floor(below, missing)])
            page = page_of(question, [*above, *statements.ids_of(rows)], 0, hit=False)
            assert page is not None  # nothing is below that
            return page
        newer, older = yield Ask(
            [
                statements.newer_anywhere(question.newer, question.limit),
                statements.below_the_floor(below, 1),
            ]
        )
        has_older = bool(above or statements.ids_of(older))
        return newer_page(question, statements.ids_of(newer), older=has_older)

    def feeds(self) -> list[tuple[str, bytes]]:
        """What may be cached: each reader with the value."""
        newest = dict.fromkeys(each.range for each in self.questions if each.is_newest)
        found = []
        for each in newest:
            source, (most, _) = self._sources[each], self._asked[each]
            if len(source.large) <= LARGE_AT_MOST:
                # Less than was asked for: that is all down to the floor.
                floor = source.floor if len(source.stored) < most else source.stored[-1]
                value = new_feed(
                    ids=source.stored, floor=floor, snapshot=source.snapshot, merged=source.large
                )
                found.append((each.reader, value))
        return found
