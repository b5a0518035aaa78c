"""How long the page and a journey take."""

from __future__ import annotations

import http.client
import random
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlencode, urlsplit

from devtools.benchmarks.operations.fill import Amounts, order_id
from devtools.benchmarks.report import BenchFigure

__all__ = ["BenchViewer", "figures_of_looking"]


class BenchViewer:
    """Somebody of the staff, on one kept connection."""

    def __init__(self, base_url: str, cookies: dict[str, str] | None = None) -> None:
        self._base_url = base_url
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=30)
        self._cookies = dict(cookies or {})

    def another(self) -> BenchViewer:
        """A window more of the same person: logins are limited, and these are not measured."""
        return BenchViewer(self._base_url, self._cookies)

    def log_in(self, name: str, password: str) -> None:
        """As a browser does it."""
        _, form = self._ask("GET", "/admin/login/")
        [token] = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form))
        fields = {"csrfmiddlewaretoken": token, "username": name, "password": password}
        status, _ = self._ask("POST", "/admin/login/?next=/ops/", urlencode(fields))
        assert status == 302, f"the login answered {status}"

    @property
    def cookie(self) -> str:
        """The header of whoever is logged in."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def get(self, path: str) -> str:
        """The page. Anything but 200 is an error of the benchmark."""
        status, body = self._ask("GET", path)
        assert status == 200, f"{path} answered {status}"
        return body

    def _ask(self, method: str, path: str, form: str = "") -> tuple[int, str]:
        headers = {"Cookie": self.cookie}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, form or None, headers)
        answer = self._connection.getresponse()
        for given in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = given.partition(";")[0].partition("=")
            self._cookies[name] = value
        return answer.status, answer.read().decode()


def figures_of_looking(viewer: BenchViewer, amounts: Amounts, looks: int) -> list[BenchFigure]:
    """The page, and journeys of orders by chance: a third of any, a third of those whose event waits, a
    third of those that have a dead letter as well."""
    chooser = random.Random(1)  # noqa: S311  (a repeatable choice, not a secret)
    ids = [
        order_id(
            1 + chooser.randrange(chooser.choice((amounts.orders, amounts.events, amounts.letters)))
        )
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
