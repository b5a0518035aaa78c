"""Metrics of HTTP, by route pattern and never by raw path."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUESTS = Counter("http_requests_total", "Answered requests.", ["method", "path", "status"])
DURATION = Histogram(
    "http_request_duration_seconds",
    "From the first byte of the request to the last of the answer.",
    ["method", "path"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
FAILED_OPEN = Counter(
    "rate_limit_failed_open_total",
    "Requests let through unlimited because Redis was away or slow.",
)
KEYS_UNREAD = Counter(
    "api_keys_unread_total",
    "Times that a process could not read the API keys; it goes on with those in its memory.",
)

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
# Looking a child up by its labels costs as much as counting; these are few (methods and routes
# are bounded) and are kept.
_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


def count(method: str, path: str, status: int, seconds: float) -> None:
    """One answered request. `path` is a route's pattern; odd methods are one label."""
    found = _children.get((method, path, status))
    if found is None:
        label = method if method in METHODS else "OTHER"
        found = REQUESTS.labels(label, path, str(status)), DURATION.labels(label, path)
        if label == method:
            _children[method, path, status] = found
    found[0].inc()
    found[1].observe(seconds)
