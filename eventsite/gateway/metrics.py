"""Metrics of HTTP, by route pattern and never by raw path."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("http_requests_total", "Answered requests.", ["method", "path", "status"])
DURATION = Histogram(
    "http_request_duration_seconds",
    "From the first byte of the request to the last of the answer.",
    ["method", "path"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
