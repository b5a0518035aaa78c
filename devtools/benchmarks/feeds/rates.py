"""Requests a second: posts, and feeds from the cache and from PostgreSQL, beside the barest server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from devtools.benchmarks.feeds.world import FeedReading, fill, settle
from devtools.benchmarks.hot_paths.serving import OURS, Served, serving
from devtools.benchmarks.hot_paths.wrk import Measured, both, measure, warm_up
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from feeds import cache
from feeds.reading.pages import pages
from feeds.reading.questions import FeedQuestion
from restapi.lookup import run

__all__ = ["NONE_KEPT", "POSTERS", "SCRIPT", "TURNS", "FeedRates", "note_of"]

BARE = "devtools.benchmarks.feeds.bare:application"
SCRIPT = Path(__file__).with_name("load.lua")
TURNS = 5  # of four loads each: the speed of a shared host changes all the time
AT_ONCE = 200
POSTERS = 100_000
KEPT = {"FEED_CACHE_SECONDS": "36000"}  # longer than a run
NONE_KEPT = {"FEED_CACHE_FEEDS": "0"}


@dataclass(frozen=True, slots=True)
class FeedLoad:
    """The requests of a load, its target, and the settings of the server that answers them."""

    name: str
    words: tuple[str, ...]
    rate: float
    p99_ms: float | None
    environment: dict[str, str]


class FeedRates:
    """A stack without our processes; each figure starts the web processes that it needs."""

    def __init__(self, stack: LocalStack, seconds: float, world: FeedReading) -> None:
        self._stack, self._seconds, self._world = stack, seconds, world
        self._filled = ""

    def posts(self) -> list[BenchFigure]:
        """POST /posts, the web process alone, answered after COMMIT."""
        words = ("post", str(POSTERS))
        return self._beside(FeedLoad("POST /posts at 32, web alone", words, 8_000, 12, {}))

    def pipeline(self) -> list[BenchFigure]:
        """The same with all our processes at work behind it."""
        load = FeedLoad(
            "POST /posts at 32, the whole pipeline running", ("post", str(POSTERS)), 4_000, None, {}
        )
        served = Served(self._stack.base_url, self._stack.process("web").pid)
        self._prepare(load, served)
        found = self._measured(load, served, self._seconds)
        return [
            BenchFigure(
                name=load.name, value=found.rate, unit="/s", at_least=load.rate, note=note_of(found)
            )
        ]

    def cached(self) -> list[BenchFigure]:
        """Every feed is in the cache; what has changed is asked for all the same."""
        self.fill()
        readers = [f"reader-{place}" for place in range(self._world.readers)]
        for at in range(0, len(readers), AT_ONCE):
            questions = [FeedQuestion(reader, 20) for reader in readers[at : at + AT_ONCE]]
            run(pages(questions, deep=False), redis=cache.replies)
        return self._beside(self._reads("GET /feeds/{user} from the cache at 32", 14_000, 8, KEPT))

    def missing(self) -> list[BenchFigure]:
        """None is; and the same where each is looked for, read, stored and pushed out again."""
        self.fill()
        name = "GET /feeds/{user}, always missing at 32"
        figures = self._beside(self._reads(name, 8_000, None, NONE_KEPT))
        with serving(self._stack, OURS, FEED_CACHE_FEEDS="1") as ours:
            load = self._reads(f"{name}, each filled in vain", 0, None, {})
            found = self._measured(load, ours, self._seconds)
        return [*figures, _figure(load.name, found)]

    def fill(self) -> str:
        """What is read, once; in words."""
        self._filled = self._filled or fill(self._stack.env["DATABASE_URL"], self._world)
        return self._filled

    def _reads(
        self, name: str, rate: float, p99_ms: float | None, environment: dict[str, str]
    ) -> FeedLoad:
        return FeedLoad(name, ("feed", str(self._world.readers)), rate, p99_ms, environment)

    def _beside(self, load: FeedLoad) -> list[BenchFigure]:
        """Ours alone, then in turns with the barest server."""
        with ExitStack() as stopping:
            ours = stopping.enter_context(serving(self._stack, OURS, **load.environment))
            self._prepare(load, ours)
            alone = self._measured(load, ours, self._seconds)
            bare = stopping.enter_context(serving(self._stack, BARE, **load.environment))
            self._prepare(load, bare)
            turns = []
            for _ in range(TURNS):
                order = (bare, ours, ours, bare)
                a, b, c, d = (self._measured(load, served, 1) for served in order)
                turns.append((both(a, d), both(b, c)))
        figures = [
            BenchFigure(
                name=load.name,
                value=float("nan") if alone.errors else alone.rate,
                unit="/s",
                at_least=load.rate,
                note=note_of(alone),
            )
        ]
        if load.p99_ms is not None:
            figures.append(
                BenchFigure(
                    name=f"{load.name}, p99", value=alone.p99_ms, unit="ms", at_most=load.p99_ms
                )
            )
        return [*figures, _share(load.name, turns)]

    def _prepare(self, load: FeedLoad, served: Served) -> None:
        warm_up(served.url, *load.words, connections=32, script=SCRIPT)
        settle(self._stack.env["DATABASE_URL"])

    @staticmethod
    def _measured(load: FeedLoad, served: Served, seconds: float) -> Measured:
        return measure(
            served.pid, served.url, *load.words, connections=32, seconds=seconds, script=SCRIPT
        )


def _share(name: str, turns: Sequence[tuple[Measured, Measured]]) -> BenchFigure:
    """Of the turn with the median share."""
    by_share = sorted(
        ((ours.rate / max(1.0, bare.rate), bare, ours) for bare, ours in turns), key=itemgetter(0)
    )
    _, bare, ours = by_share[len(by_share) // 2]
    spoiled = any(found.errors for turn in turns for found in turn)
    return BenchFigure(
        name=f"{name}, in turns with the bare server",
        value=float("nan") if spoiled else ours.rate,
        unit="/s",
        ceiling=bare.rate,
        note=f"bare: {note_of(bare)}; ours: {note_of(ours)}",
    )


def _figure(name: str, found: Measured) -> BenchFigure:
    value = float("nan") if found.errors else found.rate
    return BenchFigure(name=name, value=value, unit="/s", note=note_of(found))


def note_of(found: Measured) -> str:
    """Its times, and errors if there were any."""
    note = f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, {found.cpu_us:.0f} µs of CPU a request"
    return f"{note}, {found.errors} ERRORS" if found.errors else note
