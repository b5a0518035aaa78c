"""Posts and reads of a database with many entries, beside the same of one that is nearly empty.

Two databases of one PostgreSQL, each with a web process, which take turns: the speed of a shared host changes all
the time, and the share of two loads that ran minutes apart would say nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from urllib.parse import urlsplit

import psycopg

from devtools.benchmarks.feeds.rates import NONE_KEPT, POSTERS, SCRIPT, TURNS, note_of
from devtools.benchmarks.feeds.world import FeedReading, fill, settle
from devtools.benchmarks.hot_paths.serving import OURS, Served, serving
from devtools.benchmarks.hot_paths.wrk import Measured, both, measure, warm_up
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack

__all__ = ["Large"]

EACH = 50  # authors that a reader follows
WINDOW = 1000  # entries of a reader
FEWER = 100  # times as many readers in the large one
FEW = 100  # at least; requests of one moment for the same feed are read once, which few readers would profit by


class Large:
    """A stack without our processes. `entries`: of the large database; the other has a hundredth of the
    readers, and a hundred at least, whose feeds are the same."""

    def __init__(self, stack: LocalStack, entries: int) -> None:
        self._stack = stack
        self._readers = max(10 * FEW, entries // WINDOW)

    def figures(self) -> list[BenchFigure]:
        few = max(FEW, self._readers // FEWER)
        with _database(self._stack, "small") as small, _database(self._stack, "large") as large:
            fill(small, _reading(few))
            filled = fill(large, _reading(self._readers))
            loads = {
                "POST /posts at 32": [("post", str(POSTERS))] * 2,
                "GET /feeds/{user}, always missing at 32": [
                    ("feed", str(few)),
                    ("feed", str(self._readers)),
                ],
            }
            with ExitStack() as stopping:
                servers = [
                    stopping.enter_context(
                        serving(self._stack, OURS, DATABASE_URL=url, **NONE_KEPT)
                    )
                    for url in (small, large)
                ]
                return [
                    self._share(name, servers, words, (small, large), filled)
                    for name, words in loads.items()
                ]

    @staticmethod
    def _share(
        name: str,
        servers: list[Served],
        words: list[tuple[str, str]],
        databases: tuple[str, str],
        filled: str,
    ) -> BenchFigure:
        """In turns; of the one with the median share."""
        for served, asked, database in zip(servers, words, databases, strict=True):
            warm_up(served.url, *asked, connections=32, script=SCRIPT)
            settle(database)
        found = []
        for _ in range(TURNS):
            a, b, c, d = (_measured(servers[which], words[which]) for which in (0, 1, 1, 0))
            small, large = both(a, d), both(b, c)
            found.append((large.rate / max(1.0, small.rate), small, large))
        share, small, large = sorted(found, key=itemgetter(0))[TURNS // 2]
        spoiled = any(each.errors for _, *pair in found for each in pair)
        return BenchFigure(
            name=f"{name}, of a database with {filled}",
            value=float("nan") if spoiled else 100 * share,
            unit="% of a nearly empty one",
            at_least=80,
            note=f"{large.rate:,.0f}/s ({note_of(large)}) against {small.rate:,.0f}/s ({note_of(small)})",
        )


def _reading(readers: int) -> FeedReading:
    return FeedReading(readers=readers, entries=WINDOW, each=EACH)


def _measured(served: Served, words: tuple[str, str]) -> Measured:
    return measure(served.pid, served.url, *words, connections=32, seconds=1, script=SCRIPT)


@contextmanager
def _database(stack: LocalStack, name: str) -> Iterator[str]:
    """Another database of the stack's PostgreSQL with our tables; its URL."""
    given = stack.env["DATABASE_URL"]
    url = urlsplit(given)._replace(path=f"/{name}").geturl()
    with psycopg.connect(given, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(command, env=stack.env | {"DATABASE_URL": url}, check=True)  # noqa: S603
        yield url
    finally:
        with psycopg.connect(given, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
