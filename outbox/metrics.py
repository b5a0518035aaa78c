"""Every metric of the backbone, one line of meaning each."""

from __future__ import annotations

from functools import partial

from prometheus_client import Counter, Gauge, Histogram

_latest = partial(Gauge, multiprocess_mode="mostrecent")
_latest_of_handler = partial(_latest, labelnames=["handler"])
_sum_of_handler = partial(Gauge, labelnames=["handler"], multiprocess_mode="livesum")
_count_of_handler = partial(Counter, labelnames=["handler"])

DATABASE_GIVEN_UP = Counter(
    "database_given_up_total",
    "Connections closed because PostgreSQL did not answer in time, by what was waited for.",
    ["waited_for"],
)
for _waited_for in ("connect", "answer"):
    DATABASE_GIVEN_UP.labels(_waited_for)  # shown as 0, so that the first one is a rise
PUBLISHED = Counter("outbox_published_total", "Events written to the outbox.", ["topic"])
NUDGES_FAILED = Counter("outbox_nudges_failed_total", "Nudges lost because Redis was unavailable.")
DRAINED = Counter("outbox_drained_total", "Events acknowledged by Kafka and settled.", ["topic"])
DRAIN_BATCH = Histogram(
    "outbox_drain_batch_events",
    "Events in one drain transaction.",
    buckets=(1, 5, 20, 100, 500, 2000),
)
DRAIN_FAILED = Counter(
    "outbox_drain_failures_total", "Batches of which Kafka did not take everything.", ["reason"]
)
for _reason in ("refused", "dead"):
    DRAIN_FAILED.labels(_reason)  # shown as 0, so that the first one is a rise
BACKLOG = _latest("outbox_pending_events", "Committed events not yet in Kafka.")
OLDEST_AGE = _latest("outbox_oldest_pending_seconds", "Age of the oldest of them.")
FLOOR_UNDERCUT = Counter(
    "outbox_floor_undercut_total",
    "Pending rows found below a floor by the sweep of each minute.",
)
COMMIT_TO_KAFKA = Histogram(
    "outbox_commit_to_kafka_seconds",
    "From the oldest outbox row of a batch to Kafka's acknowledgement of the batch.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
CHUNKS_SENT = _count_of_handler("bridge_chunks_sent_total", "Chunks handed to Celery.")
CHUNKS_RETRIED = Counter(
    "bridge_chunks_retried_total", "Chunks sent again, by reason.", ["handler", "reason"]
)
BRIDGE_LAG = _sum_of_handler(
    "bridge_lag_events",
    "Messages in Kafka that the handler has not applied, on the partitions of this bridge.",
)
CONSUMER_STALLED = _count_of_handler(
    "bridge_consumer_stalled_total",
    "Times that the Kafka client had stopped fetching and was replaced.",
)
POSITION_LOST = _count_of_handler(
    "bridge_position_lost_total", "Times that the log did not hold the next event of the handler."
)
OUT_OF_RANGE = _sum_of_handler(
    "bridge_positions_out_of_range",
    "Partitions of this bridge that are stopped because the log does not hold their next event.",
)
EFFECTS_APPLIED = _count_of_handler("effects_applied_total", "Events applied.")
DUPLICATES = _count_of_handler("effects_duplicates_total", "Events dropped as already applied.")
CHUNKS_REFUSED = Counter(
    "effects_chunks_refused_total",
    "Chunks refused without effect, by reason: busy, paused, gap, ….",
    ["handler", "reason"],
)
CHUNKS_FAILED = _count_of_handler("effects_chunks_failed_total", "Chunks rolled back by an error.")
COMMIT_TO_EFFECT = Histogram(
    "effects_commit_to_effect_seconds",
    "From the writer's commit (ce_time) to the effect, of the oldest event of each transaction.",
    ["handler"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
PARKED = _count_of_handler(
    "dead_letters_parked_total", "Events set aside, failed ones and followers."
)
FOREIGN = _count_of_handler(
    "dead_letters_foreign_total",
    "Events among them that are not ours and cannot be decoded: their producer's fault.",
)
FOREIGN_TYPES = Counter(
    "bridge_foreign_types_total",
    "Events of other producers that passed by because nobody here knows their type, by type; only "
    "the first types that a process meets are named.",
    ["handler", "type"],
)
UNKNOWN_TYPE_WAITING = Gauge(
    "bridge_unknown_type_waiting",
    "Partitions of this bridge that wait before an event of ours, by its type and by the release of "
    "the bridge, which does not know it.",
    ["handler", "type", "version"],
    multiprocess_mode="livesum",
)
UNKNOWN_TYPE_OPEN = _latest(
    "dead_letters_unknown_type",
    "Events of ours that are parked by type and by the release that does not know it, counted up to "
    "10,000.",
    ["handler", "type", "version"],
)
REDRIVEN = Counter(
    "dead_letters_redriven_total",
    "Events tried again, by result: applied, failed, dead.",
    ["handler", "result"],
)
LETTERS_OPEN = _latest(
    "dead_letters_open",
    "Dead letters nobody has resolved, counted up to 10,000.",
    ["handler", "state"],
)
LETTERS_OLDEST = _latest_of_handler("dead_letters_oldest_seconds", "Age of the oldest of them.")
HANDLER_PAUSED = _latest_of_handler("handler_paused", "1 while a handler is paused.")
CIRCUIT_OPEN = _latest_of_handler(
    "handler_circuit_open", "1 while a handler is paused by its circuit."
)
HELD = _latest(
    "outbox_held_events",
    "Committed events behind a message that Kafka refused, counted up to 10,000.",
)

# What waits, measured from PostgreSQL and Kafka (outbox/upkeep/gauges.py).
MEASURED = _latest(
    "outbox_measured_timestamp_seconds",
    "When the gauges of the outbox were last set: they are as old as this.",
)
HANDLERS_MEASURED = _latest(
    "handler_measured_timestamp_seconds",
    "When the gauges of handlers, lanes and upkeep were last set.",
)
UNCLAIMABLE = _latest(
    "outbox_unclaimable_events",
    "Pending events that no drain will claim: of a topic without a route, or of no lane.",
)
LANES_PAUSED = _latest("outbox_lanes_paused", "Lanes that an operator has paused.")
LANES_HELD = Gauge(
    "outbox_lanes_held",
    "Lanes that a drain has locked now, by its application name.",
    ["application"],
    multiprocess_mode="livemostrecent",
)
LANE_HELD = _latest("outbox_lane_held_seconds", "How long the longest held lane has been held.")
HANDLER_BACKLOG = _latest_of_handler(
    "handler_backlog_events",
    "Messages in Kafka behind the handler's positions, whether a bridge runs or not.",
)
HANDLER_UNREAD = _latest_of_handler(
    "handler_partitions_unread",
    "Partitions of its topic that the handler has no position on, so nothing of them is applied.",
)
HANDLER_AGE = _latest_of_handler(
    "handler_oldest_unapplied_seconds",
    "Age of the oldest event in Kafka that the handler has not applied.",
)
HANDLER_CANARY = _latest_of_handler(
    "handler_canary_age_seconds",
    "Age of the newest canary that has gone through the handler, while it is not paused.",
)
HANDLER_RETENTION = _latest_of_handler(
    "handler_retention_used_ratio",
    "That age as a share of the topic's retention: at 1 Kafka deletes what was not applied.",
)
AUDIT_MISSING = _latest_of_handler(
    "audit_missing_events", "Committed events that the handler will not get without a repair."
)
AUDIT_MISSING_AGE = _latest_of_handler("audit_oldest_missing_seconds", "Age of the oldest of them.")
AUDIT_WAITING = _latest_of_handler(
    "audit_waiting_events", "Events older than half a minute that are under way to the handler."
)
AUDIT_BEHIND = _latest_of_handler(
    "audit_behind_seconds", "Age of the first event that the audit has not looked at yet."
)
PURGED = Counter("outbox_purged_total", "Rows deleted after their retention.", ["table"])
UPKEEP_AGE = _latest(
    "upkeep_last_done_seconds",
    "Seconds since the audit, the purge, … last ended.",
    ["job"],
)
CHUNKS_RETRIED_FOR = ("failed", "deadline", "lost")


def show_effects(handler: str) -> None:
    """Counters of a handler are shown as 0 before they first rise, in the processes that apply its
    events: Prometheus sees no rise in a series that begins with it."""
    for counter in (DUPLICATES, CHUNKS_FAILED, PARKED, FOREIGN):
        counter.labels(handler)
    for reason in ("busy", "transient"):
        CHUNKS_REFUSED.labels(handler, reason)
    for result in ("applied", "failed", "dead"):
        REDRIVEN.labels(handler, result)


PROCESS_UP = Gauge(
    "process_up", "1 while a process of this kind answers.", ["process"], multiprocess_mode="max"
)
