"""Every metric of the backbone, one line of meaning each."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("outbox_published_total", "Events written to the outbox.", ["topic"])
NUDGES_FAILED = Counter("outbox_nudges_failed_total", "Nudges lost because Redis was away.")
DRAINED = Counter("outbox_drained_total", "Events acknowledged by Kafka and settled.", ["topic"])
DRAIN_BATCH = Histogram(
    "outbox_drain_batch_events",
    "Events in one drain transaction.",
    buckets=(1, 5, 20, 100, 500, 2000),
)
DRAIN_FAILED = Counter(
    "outbox_drain_failures_total", "Batches that Kafka did not take whole.", ["reason"]
)
BACKLOG = Gauge(
    "outbox_pending_events", "Committed events not yet in Kafka.", multiprocess_mode="mostrecent"
)
OLDEST_AGE = Gauge(
    "outbox_oldest_pending_seconds", "Age of the oldest of them.", multiprocess_mode="mostrecent"
)
COMMIT_TO_KAFKA = Histogram(
    "outbox_commit_to_kafka_seconds",
    "From the outbox row to Kafka's acknowledgement.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
CHUNKS_SENT = Counter("bridge_chunks_sent_total", "Chunks handed to Celery.", ["handler"])
CHUNKS_RETRIED = Counter(
    "bridge_chunks_retried_total", "Chunks sent again, by reason.", ["handler", "reason"]
)
BRIDGE_LAG = Gauge(
    "bridge_lag_events",
    "Messages in Kafka that the handler has not applied, on the partitions of this bridge.",
    ["handler"],
    multiprocess_mode="livesum",
)
POSITION_LOST = Counter(
    "bridge_position_lost_total", "Positions that the log no longer holds.", ["handler"]
)
EFFECTS_APPLIED = Counter("effects_applied_total", "Events applied.", ["handler"])
DUPLICATES = Counter("effects_duplicates_total", "Events dropped as already applied.", ["handler"])
CHUNKS_REFUSED = Counter(
    "effects_chunks_refused_total",
    "Chunks without effect: busy, paused, gap, ….",
    ["handler", "reason"],
)
CHUNKS_FAILED = Counter(
    "effects_chunks_failed_total", "Chunks rolled back by an error.", ["handler"]
)
COMMIT_TO_EFFECT = Histogram(
    "effects_commit_to_effect_seconds",
    "From the writer's commit (ce_time) to the effect.",
    ["handler"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
PARKED = Counter(
    "dead_letters_parked_total", "Events set aside, failed ones and followers.", ["handler"]
)
REDRIVEN = Counter(
    "dead_letters_redriven_total",
    "Events tried again, by result: applied, failed, dead.",
    ["handler", "result"],
)
LETTERS_OPEN = Gauge(
    "dead_letters_open",
    "Dead letters nobody has resolved, counted up to 10,000.",
    ["handler", "state"],
    multiprocess_mode="mostrecent",
)
LETTERS_OLDEST = Gauge(
    "dead_letters_oldest_seconds",
    "Age of the oldest of them.",
    ["handler"],
    multiprocess_mode="mostrecent",
)
HANDLER_PAUSED = Gauge(
    "handler_paused", "1 while a handler is paused.", ["handler"], multiprocess_mode="mostrecent"
)
CIRCUIT_OPEN = Gauge(
    "handler_circuit_open",
    "1 while a handler is paused by its circuit.",
    ["handler"],
    multiprocess_mode="mostrecent",
)
HELD = Gauge(
    "outbox_held_events",
    "Committed events behind a message that Kafka refused, counted up to 10,000.",
    multiprocess_mode="mostrecent",
)
