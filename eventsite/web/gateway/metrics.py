"""Metrics of HTTP, by route pattern and never by raw path."""

from __future__ import annotations

import asyncio
import collections
from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("http_requests_total", "Answered requests.", ["method", "path", "status"])


class _Histogram(Histogram):
    """Takes many observations at once: each is two writes to a file that processes share."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """As `observe` of each, with one addition to the sum and one to each bucket."""
        buckets = collections.Counter(bisect_left(self._upper_bounds, each) for each in amounts)
        self._sum.inc(sum(amounts))
        for bucket, times in buckets.items():
            self._buckets[bucket].inc(times)


DURATION = _Histogram(
    "http_request_duration_seconds",
    "From the first byte of the request to the last of the answer.",
    ["method", "path"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
FAILED_OPEN = Counter(
    "rate_limit_failed_open_total",
    "Requests that passed without a limit because Redis was unavailable or slow.",
)
KEYS_UNREAD = Counter(
    "api_keys_unread_total",
    "Times that a process could not read the API keys; it continues with the keys in its memory.",
)
SOCKETS_OPEN = Gauge(
    "websockets_open", "WebSockets that are open.", ["path"], multiprocess_mode="livesum"
)
SOCKETS_OPENED = Counter("websockets_opened_total", "WebSockets accepted.", ["path"])
SOCKETS_CLOSED = Counter(
    "websockets_closed_total", "WebSockets that have ended, by close code.", ["path", "code"]
)
SOCKET_MESSAGES = Counter(
    "websocket_messages_total", "Messages over WebSockets.", ["path", "direction"]
)

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
Kind = tuple[str, str, int]  # of answers: method, the route's pattern, status


def count(kind: Kind, seconds: Sequence[float]) -> None:
    """Answered requests of one kind, and how long each took. Odd methods are one label."""
    method, path, status = kind
    label = method if method in METHODS else "OTHER"
    REQUESTS.labels(label, path, str(status)).inc(len(seconds))
    DURATION.labels(label, path).observe_all(seconds)


class RequestTally:
    """Raises a counter once a turn of the event loop: a change that goes to thousands of sockets would
    spend a fifth of its time with counting."""

    __slots__ = ("_count", "_counter")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._count = 0

    def inc(self) -> None:
        if not self._count:
            asyncio.get_running_loop().call_soon(self._flush)
        self._count += 1

    def _flush(self) -> None:
        count, self._count = self._count, 0
        self._counter.inc(count)
