"""The page as it is pushed: how soon it shows what has become true, and what many who watch cost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

import psycopg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from devtools.benchmarks.cpu import seconds_of, seconds_of_stack
from devtools.benchmarks.operations.looking import BenchViewer
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack

__all__ = [
    "Watched",
    "changes_of_letters",
    "changes_of_pauses",
    "figures_of_viewers",
    "until_seen",
    "watching",
]

PAUSED = "record_sales"
WITHOUT_LETTERS = (
    "record_processed_events"  # the fill leaves it alone, so its first one is an alarm
)
ALARM = "Dead letters without an attempt left"
SEEN_WITHIN = 30.0
SETTLES_SECONDS = 3.0  # from the last socket to the measure
FRAMES_A_SECOND = 0.5  # below that the page was not live, and its price says nothing

Change = tuple[str, Callable[[], object], Callable[[str], bool]]
"""What is done, and whether what is pushed shows it."""


class Watched:
    """One open WebSocket of the page. `newest`: the last frame as it came; `frames`: how many came."""

    def __init__(self, client: ClientConnection) -> None:
        self.newest = ""
        self.frames = 0
        self._client = client
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for frame in self._client:
                self.newest = str(frame)
                self.frames += 1
        except ConnectionClosed:
            pass


@contextmanager
def watching(base_url: str, viewers: Sequence[BenchViewer]) -> Iterator[list[Watched]]:
    """As page.js does it, for so many browsers."""
    host = urlsplit(base_url).netloc
    with ExitStack() as sockets:
        yield [
            Watched(
                sockets.enter_context(
                    connect(
                        f"ws://{host}/ops/ws",
                        additional_headers={"Cookie": viewer.cookie, "Origin": base_url},
                        proxy=None,
                        max_size=None,
                    )
                )
            )
            for viewer in viewers
        ]


def changes_of_pauses(
    pause: Callable[[str], object], resume: Callable[[], object], *, times: int
) -> Iterator[Change]:
    """A handler is paused for a reason that stands on the page, and resumed."""
    for number in range(times):
        reason = f"measured {number} of {times}"
        yield "paused", partial(pause, reason), partial(_has, PAUSED, reason, True)
        yield "resumed", resume, partial(_has, PAUSED, "paused", False)


def changes_of_letters(database_url: str, *, times: int) -> Iterator[Change]:
    """The first dead letter of a handler: an alarm without a delay. And it is gone."""
    written = """
        INSERT INTO dead_letter (handler, event_id, topic, key, type, source, event_time, payload,
            traceparent, correlation_id, state, error)
        VALUES (%s, gen_random_uuid(), 'orders.created', 'k', 'SIMPLE_ORDER_CREATED', '/orders', '',
            '{}', '', '', 2, 'measured')
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(times):
            for name, statement, wanted in (
                ("alarm", written, True),
                ("no alarm", "DELETE FROM dead_letter WHERE handler = %s", False),
            ):
                yield (
                    name,
                    partial(connection.execute, statement, (WITHOUT_LETTERS,)),
                    partial(_has, WITHOUT_LETTERS, ALARM, wanted),
                )


def _has(handler: str, words: str, wanted: bool, frame: str) -> bool:
    cards = _cards(frame, handler)
    return bool(cards) and (words in cards) is wanted


def until_seen(watched: Watched, changes: Iterator[Change]) -> BenchFigure:
    """From the commit of each change until a frame shows it; inf where none does."""
    longest: dict[str, float] = {}
    count = 0
    for name, change, is_seen in changes:
        count += 1
        change()
        began = time.monotonic()
        while not is_seen(watched.newest) and time.monotonic() - began < SEEN_WITHIN:
            time.sleep(0.02)
        took = time.monotonic() - began if is_seen(watched.newest) else float("inf")
        longest[name] = max(took, longest.get(name, 0.0))
    return BenchFigure(
        name=f"from true to seen: {' and '.join(longest)}",
        value=max(longest.values()),
        unit="s",
        at_most=5,
        note=f"{count} changes, seen in what is pushed; the longest: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest.items()),
    )


def figures_of_viewers(
    stack: LocalStack, viewer: BenchViewer, *, viewers: int, seconds: float
) -> list[BenchFigure]:
    """What so many who watch cost the web process, beside what one of them costs and what its rest does;
    and the same of as many who ask, because no WebSocket comes through to them."""
    seen = [viewer.another() for _ in range(viewers)]
    pid = stack.process("web").pid

    def pushed(those: Sequence[BenchViewer]) -> tuple[float, float, str]:
        with watching(stack.base_url, those) as watched:
            time.sleep(SETTLES_SECONDS)
            before, frames = seconds_of_stack(stack), [each.frames for each in watched]
            spent = _busy(pid, seconds)
            after = seconds_of_stack(stack)
            least = min(each.frames - had for each, had in zip(watched, frames, strict=True))
            size = len(watched[0].newest.encode())
        servers = ", ".join(
            f"{name} {1000 * (after[name] - before[name]) / seconds:.0f}"
            for name in ("postgres", "redis", "kafka")
            if name in after
        )
        told = f"{least / seconds:.2f} frames a second to each, of {size / 1000:.0f} kB; {servers}"
        return spent, least / seconds, told

    one, _, _ = pushed(seen[:1])
    all_, frames, told = pushed(seen)
    asked = _asking(seen, pid, seconds)
    return [
        BenchFigure(
            name=f"{viewers} viewers, pushed",
            value=1000 * all_ if frames >= FRAMES_A_SECOND else float("nan"),
            unit="ms of a core a second",
            at_most=50,
            note=f"the web process; one viewer: {1000 * one:.0f}; {told}",
        ),
        BenchFigure(
            name=f"{viewers} viewers who ask /ops/live",
            value=1000 * asked,
            unit="ms of a core a second",
            note="where no WebSocket comes through; each every two seconds",
        ),
    ]


def _asking(seen: Sequence[BenchViewer], pid: int, seconds: float) -> float:
    stop = threading.Event()

    def ask(viewer: BenchViewer, begin: float) -> None:
        stop.wait(begin)
        while not stop.is_set():
            viewer.get("/ops/live")
            stop.wait(2.0)

    threads = [
        threading.Thread(target=ask, args=(viewer, 2.0 * number / len(seen)), daemon=True)
        for number, viewer in enumerate(seen)
    ]
    for thread in threads:
        thread.start()
    time.sleep(SETTLES_SECONDS)
    spent = _busy(pid, seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return spent


def _busy(pid: int, seconds: float) -> float:
    """Processor seconds of a second."""
    before, began = seconds_of(pid), time.monotonic()
    time.sleep(seconds)
    return (seconds_of(pid) - before) / (time.monotonic() - began)


def _cards(frame: str, name: str) -> str:
    """The HTML of the cards of a handler in a frame, its own and that of its dead letters; empty where
    there is none yet."""
    if not frame:
        return ""
    cards = json.loads(frame)["now"].split('<li class="card')[1:]
    return "".join(card for card in cards if f"{name}<" in card.partition("</p>")[0])
