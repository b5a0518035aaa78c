"""Requests that change nothing, one after the other while something is broken: how long each took,
and the answer it got."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

__all__ = ["Visit", "Visits", "visiting"]

PATIENCE_SECONDS = 120.0  # longer than anything is broken: whoever waits too long is to be seen
PAUSE_SECONDS = 0.2
READY = "/health/ready"
# A change of an order that does not exist asks the database, and has nothing to change.
REQUESTS = (
    ("GET", "/orders"),
    ("GET", "/orders?limit=1"),
    ("GET", "/analytics/summary"),
    ("POST", f"/orders/{uuid4()}/pay"),
    ("GET", READY),
)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request; `at`: when it was sent, seconds since the epoch; `status` 0: no answer."""

    method: str
    path: str
    at: float
    seconds: float
    status: int
    retry_after: str = ""
    body: Any = None


@dataclass(slots=True)
class Visits:
    """What the visitors have met so far."""

    met: list[Visit] = field(default_factory=list)

    def sent_between(self, begin: float, end: float) -> list[Visit]:
        return [visit for visit in self.met if begin <= visit.at <= end]

    @staticmethod
    def faults(visits: Sequence[Visit], *, within: float) -> list[str]:
        """What is wrong with answers that are given while the database says nothing."""
        found = []
        for visit in visits:
            visited = f"{visit.method} {visit.path} after {visit.seconds:.1f} s: {visit.status}"
            body = visit.body if isinstance(visit.body, dict) else {}
            if visit.seconds > within:
                found.append(f"{visited}, later than {within:.0f} s")
            elif visit.status != 503 or not visit.retry_after:
                found.append(f"{visited} {visit.body}, Retry-After {visit.retry_after!r}")
            elif visit.path == READY and body.get("status") != "not ready":
                found.append(f"{visited}, readiness says {body}")
            elif visit.method == "POST" and body.get("outcome") != "not_stored":
                found.append(f"{visited}, of a change that was never made it says {body}")
        return found


@contextmanager
def visiting(port: int) -> Iterator[Visits]:
    """One visitor for each kind of request until the end of the block."""
    visits = Visits()
    stop = threading.Event()

    def visit(method: str, path: str) -> None:
        while not stop.wait(PAUSE_SECONDS):
            visits.met.append(_visit(port, method, path))

    threads = [threading.Thread(target=visit, args=request, daemon=True) for request in REQUESTS]
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _visit(port: int, method: str, path: str) -> Visit:
    at, begin = time.time(), time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    status, retry_after, body = 0, "", None
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        status, retry_after = answer.status, answer.getheader("Retry-After", "")
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        body = repr(error)
    finally:
        connection.close()
    return Visit(method, path, at, time.monotonic() - begin, status, retry_after, body)
