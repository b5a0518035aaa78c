"""Metrics of the status hub, by log."""

from prometheus_client import Counter, Gauge, Histogram

CLIENTS = Gauge(
    "status_feed_clients",
    "WebSockets that follow a status log.",
    ["log"],
    multiprocess_mode="livesum",
)
CUT_OFF = Counter(
    "status_feed_cut_off_total",
    "WebSockets closed with 1013 because their queue in the hub was full.",
    ["log"],
)
GAPS = Counter(
    "status_feed_gaps_total",
    "Gap messages sent: a client asked for changes that are no longer kept, or the log went back.",
    ["log"],
)
READ = Counter("status_feed_changes_total", "Changes read for open WebSockets.", ["log"])
UNREAD = Counter(
    "status_feed_unread_total",
    "Times that a web process could not read a status log; it tries again twice a second.",
    ["log"],
)
NUMBERED = Counter("status_log_numbered_total", "Changes that were given their number.", ["log"])
LAG = Histogram(
    "status_feed_lag_seconds",
    "From a change to the queues of the sockets that want it.",
    ["log"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
