"""What goes on beside the load: the probe's events, the kills, the bars that show progress."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from django.db import DatabaseError, connection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from devtools.probe import services as probe_services
from devtools.testing import measure

__all__ = ["Background", "DrawnProgress", "event_progress", "probe_load"]

PROBE_INTERVAL = 0.1
HOT_KEYS = [f"hot-{number}" for number in range(8)]
COLD_KEYS = 1000


class Background:
    """Work in a thread of its own, started at once; what it dies of is raised by `finish`.

    The thread's database connection is closed at its end.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as failure:  # noqa: BLE001  (raised again by finish)
            self._failure = failure
        finally:
            connection.close()

    def wait(self) -> None:
        """Until the work has ended, however it did."""
        self._thread.join()

    def finish(self) -> None:
        """Wait; raises what the work raised."""
        self.wait()
        if self._failure is not None:
            raise self._failure


@dataclass(slots=True)
class DrawnProgress:
    """How many numbers of the probe have been committed so far."""

    numbers: int = 0


@contextmanager
def probe_load() -> Iterator[DrawnProgress]:
    """The probe's keyed events beside the orders: eight hot keys, a thousand cold ones.

    Raises at the end whatever kept it from drawing.
    """
    stop = threading.Event()
    drawn = DrawnProgress()
    chooser = random.Random(3)  # noqa: S311  (a repeatable choice, not a secret)

    def draw() -> None:
        while not stop.wait(PROBE_INTERVAL):
            cold = f"cold-{chooser.randrange(COLD_KEYS)}"
            drawn.numbers += len(probe_services.draw([*chooser.sample(HOT_KEYS, 2), cold]))

    drawer = Background(draw)
    try:
        yield drawn
    finally:
        stop.set()
        drawer.wait()
    drawer.finish()


@contextmanager
def event_progress(console: Console) -> Iterator[Progress]:
    """Live bars, one already there: effects applied of the events committed so far for a handler.

    They stay until the end of the block, and show then what there is at that moment.
    """
    columns = (
        TextColumn("{task.description:>16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    stop = threading.Event()
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("events applied", total=None)

        def look() -> None:
            found = measure.counts()
            progress.update(task, total=found.heard, completed=found.applied)

        def watch() -> None:
            while not stop.wait(0.5):
                with suppress(DatabaseError):
                    look()

        watcher = Background(watch)
        try:
            yield progress
        finally:
            stop.set()
            watcher.wait()
            look()
