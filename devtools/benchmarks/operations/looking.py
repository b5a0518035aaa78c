"""How long the page and a journey take, and how soon the page shows what has become true."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlencode, urlsplit

from devtools.benchmarks.cpu import seconds_of
from devtools.benchmarks.operations.fill import Amounts, order_id
from devtools.benchmarks.report import BenchFigure

__all__ = ["BenchViewer", "figures_of_looking", "figures_of_viewers", "seconds_until_seen"]

HANDLER = "record_sales"
TIMES = 10
SEEN_WITHIN = 30.0


class BenchViewer:
    """Somebody of the staff, on one kept connection."""

    def __init__(self, base_url: str, name: str, password: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=30)
        self._cookies: dict[str, str] = {}
        _, form = self._ask("GET", "/admin/login/")
        [token] = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form))
        fields = {"csrfmiddlewaretoken": token, "username": name, "password": password}
        status, _ = self._ask("POST", "/admin/login/?next=/ops/", urlencode(fields))
        assert status == 302, f"the login answered {status}"

    def get(self, path: str) -> str:
        """The page. Anything but 200 is an error of the benchmark."""
        status, body = self._ask("GET", path)
        assert status == 200, f"{path} answered {status}"
        return body

    def _ask(self, method: str, path: str, form: str = "") -> tuple[int, str]:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, form or None, headers)
        answer = self._connection.getresponse()
        for given in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = given.partition(";")[0].partition("=")
            self._cookies[name] = value
        return answer.status, answer.read().decode()


def figures_of_looking(viewer: BenchViewer, amounts: Amounts, looks: int) -> list[BenchFigure]:
    """The page, and journeys of orders by chance: half of them wait, half of those have a letter."""
    chooser = random.Random(1)  # noqa: S311  (a repeatable choice, not a secret)
    ids = [
        order_id(1 + chooser.randrange(chooser.choice((amounts.orders, amounts.events))))
        for _ in range(looks)
    ]
    viewer.get("/ops/")
    size = f"{amounts.events:,} pending, {amounts.letters:,} letters, {amounts.orders:,} orders"
    return [
        _p99("/ops/", [_timed(lambda: viewer.get("/ops/")) for _ in range(looks)], size),
        _p99(
            "journey of one id",
            [_timed(partial(viewer.get, f"/ops/journey?id={id_}")) for id_ in ids],
            size,
        ),
    ]


def seconds_until_seen(
    viewer: BenchViewer, pause: Callable[[], None], resume: Callable[[], object]
) -> list[BenchFigure]:
    """From the commit of a pause, and of its end, until /ops/status.json says so."""
    viewer.get("/ops/status.json")
    found = []
    for _ in range(TIMES):
        for change, wanted in ((pause, True), (resume, False)):
            change()
            found.append(_until(partial(_is_paused, viewer, wanted)))
    return [
        BenchFigure(
            name="from true to seen, the longest",
            value=max(found),
            unit="s",
            at_most=5,
            note=f"{len(found)} times: a handler is paused, or resumed",
        )
    ]


def figures_of_viewers(
    base_url: str, name: str, password: str, web_pid: int, *, viewers: int, seconds: float
) -> list[BenchFigure]:
    """What so many who look cost the web process, beyond what one of them costs."""
    seen = [BenchViewer(base_url, name, password) for _ in range(viewers)]
    every = float(re.findall(r'data-seconds="([\d.]+)"', seen[0].get("/ops/"))[0])
    one = _busy(seen[:1], every, seconds, web_pid)
    all_ = _busy(seen, every, seconds, web_pid)
    return [
        BenchFigure(
            name=f"{viewers} viewers",
            value=1000 * all_,
            unit="ms of a core a second",
            at_most=50,
            note=f"the web process; each renews the page every {every:g} s; one of them: {1000 * one:.0f}",
        )
    ]


def _busy(seen: Sequence[BenchViewer], every: float, seconds: float, pid: int) -> float:
    """Processor seconds of a second."""
    stop = threading.Event()

    def look(viewer: BenchViewer, begin: float) -> None:
        stop.wait(begin)
        while not stop.is_set():
            viewer.get("/ops/live")
            stop.wait(every)

    threads = [
        threading.Thread(target=look, args=(viewer, every * number / len(seen)), daemon=True)
        for number, viewer in enumerate(seen)
    ]
    for thread in threads:
        thread.start()
    time.sleep(every)
    before, began = seconds_of(pid), time.monotonic()
    time.sleep(seconds)
    spent = (seconds_of(pid) - before) / (time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join()
    return spent


def _p99(name: str, times: Sequence[float], note: str) -> BenchFigure:
    ranked = sorted(times)
    p50, p99 = (ranked[min(len(ranked) - 1, int(len(ranked) * part))] for part in (0.5, 0.99))
    return BenchFigure(
        name=f"{name}, p99",
        value=p99,
        unit="ms",
        at_most=300,
        note=f"{len(times)} times, p50 {p50:.0f} ms; {note}",
    )


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds; with a pause behind it, in which the page's observer has the machine."""
    began = time.perf_counter()
    work()
    spent = 1000 * (time.perf_counter() - began)
    time.sleep(0.05)
    return spent


def _is_paused(viewer: BenchViewer, wanted: bool) -> bool:
    told = json.loads(viewer.get("/ops/status.json"))
    notes = [note for hop in told["hops"] if hop["name"] == HANDLER for note in hop["notes"]]
    return wanted is any(note.startswith("paused") for note in notes)


def _until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > SEEN_WITHIN:
            return float("inf")
        time.sleep(0.05)
    return time.monotonic() - began
