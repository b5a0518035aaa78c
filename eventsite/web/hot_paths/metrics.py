"""Metrics of the hot paths."""

from prometheus_client import Gauge, Histogram

BATCH = Histogram(
    "hot_path_batch_commands",
    "Requests answered by one transaction or one statement, by method and route.",
    ["path"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 256),
)
WAITING = Gauge(
    "hot_path_waiting_requests",
    "Requests that wait for their batch, as of the last second.",
    ["path"],
    multiprocess_mode="livesum",
)
OLDEST = Gauge(
    "hot_path_oldest_request_seconds",
    "Age of the oldest request without an answer, as of the last second.",
    ["path"],
    multiprocess_mode="livemax",
)
