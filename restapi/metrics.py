"""Metrics of the status logs, as upkeep measures them."""

from prometheus_client import Counter, Gauge

UNNUMBERED = Gauge(
    "status_log_unnumbered_seconds",
    "Age of the oldest committed change without a number, by log; 0: there is none.",
    ["log"],
    multiprocess_mode="mostrecent",
)
PURGED = Counter("status_log_purged_total", "Changes deleted after their retention.", ["log"])
