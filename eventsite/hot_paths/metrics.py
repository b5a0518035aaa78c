"""Metrics of the hot paths."""

from prometheus_client import Histogram

BATCH = Histogram(
    "hot_path_batch_commands",
    "Requests answered by one transaction or one statement, by method and route.",
    ["path"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 256),
)
