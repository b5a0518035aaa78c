"""Metrics of the feeds."""

from __future__ import annotations

from functools import partial

from prometheus_client import Counter, Gauge, Histogram

# Of all processes the one that has measured last counts.
_gauge = partial(Gauge, multiprocess_mode="mostrecent")

EVENTS_PROCESSED = Counter(
    "feed_events_processed_total", "Events of posts and follows applied, by type.", ["type"]
)
PROCESSING = Histogram(
    "feed_event_processing_duration_seconds",
    "Duration of the effect of a chunk of such events, by handler.",
    ["handler"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 6),
)
ENTRIES = Counter(
    "feed_fanout_entries_total",
    "Entries written or deleted by slices, by the kind of the slice.",
    ["kind"],
)
SLICES_WAITING = _gauge(
    "feed_fanout_slices_waiting",
    "Slices that are not finished, counted up to 100,000; failed ones are not among them.",
)
OLDEST_SLICE = _gauge("feed_fanout_oldest_slice_seconds", "Age of the oldest of them.")
SLICES_FAILED = _gauge(
    "feed_fanout_slices_failed",
    "Slices whose attempts are used up and that wait for an operator, counted up to 100,000.",
)
MEASURED = _gauge(
    "feed_fanout_measured_timestamp_seconds", "When the gauges of slices were last set."
)
LAG = Histogram(
    "feed_lag_seconds",
    "From the acceptance of a post until the feeds of a slice of its followers show it, by how many "
    "followers its author has.",
    ["followers"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
NUDGES_FAILED = Counter(
    "feed_fanout_nudges_failed_total", "Nudges of the fan-out lost because Redis was unavailable."
)
CACHE_HITS = Counter(
    "feed_cache_hits_total", "Pages of feeds answered from the cache (X-Cache: HIT)."
)
CACHE_MISSES = Counter(
    "feed_cache_misses_total", "Pages of feeds read from PostgreSQL (X-Cache: MISS)."
)
NODES_NOT_HELD = Counter(
    "feed_nodes_not_held_total",
    "Attempts to hold or renew the node number with which a process makes ids that failed.",
)
