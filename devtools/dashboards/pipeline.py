"""The pipeline: outbox, drain, Kafka, bridges, handlers, dead letters, audit."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import (
    bound_of,
    dashboard,
    lines,
    newest,
    number,
    quantile,
    rate,
)

__all__ = ["made"]

NUMBERS = (
    number(
        "Oldest committed event",
        "Age of the oldest committed event that is not in Kafka.",
        newest("outbox_oldest_pending_seconds"),
        unit="s",
        bound=bound_of("OutboxOldestAge"),
    ),
    number(
        "Oldest event in Kafka",
        "Age of the oldest event in Kafka that its handler has not applied.",
        newest("handler_oldest_unapplied_seconds"),
        unit="s",
        bound=bound_of("HandlerLag"),
    ),
    number(
        "Missing",
        "Committed events that a handler gets only by a repair.",
        "sum(max by (handler) (audit_missing_events))",
        bound=bound_of("AuditMissing"),
    ),
    number(
        "Dead letters",
        "Open dead letters; followers that wait behind one are not included.",
        'sum(max by (handler) (dead_letters_open{state="dead"}))',
        bound=bound_of("DeadLetters"),
    ),
)
OUTBOX = (
    lines(
        "Published and drained",
        "Events a second: written in the transaction of their change, and acknowledged by Kafka.",
        ("published {{topic}}", rate("outbox_published_total", "topic")),
        ("drained {{topic}}", rate("outbox_drained_total", "topic")),
    ),
    lines(
        "Committed, not in Kafka",
        "Waiting events; held ones wait behind a message that Kafka refuses.",
        ("waiting", newest("outbox_pending_events")),
        ("held", newest("outbox_held_events")),
        ("without a known topic or lane", newest("outbox_unclaimable_events")),
    ),
    lines(
        "Commit to Kafka",
        "Time for the oldest event of each batch.",
        ("50 %", quantile(0.5, "outbox_commit_to_kafka_seconds")),
        ("99 %", quantile(0.99, "outbox_commit_to_kafka_seconds")),
        unit="s",
    ),
    lines(
        "Drain",
        "Batches per second that Kafka did not take completely, by reason; events in a batch, at the median.",
        ("{{reason}}", rate("outbox_drain_failures_total", "reason")),
        ("events of a batch", quantile(0.5, "outbox_drain_batch_events")),
    ),
    lines(
        "Lanes",
        "Lanes paused by an operator, lanes held by a drain now, and seconds of the longest hold.",
        ("paused", newest("outbox_lanes_paused")),
        ("held by {{application}}", newest("outbox_lanes_held", "application")),
        ("seconds held", newest("outbox_lane_held_seconds")),
        bound=bound_of("LaneHeld"),
    ),
    lines(
        "Nudges and floors",
        "A lost nudge delays events by a second; an undercut floor raises an alarm.",
        ("nudges lost", rate("outbox_nudges_failed_total")),
        ("floors undercut", rate("outbox_floor_undercut_total")),
    ),
)
HANDLERS = (
    lines(
        "Applied",
        "Events per second.",
        ("{{handler}}", rate("effects_applied_total", "handler")),
    ),
    lines(
        "Behind",
        "Messages in Kafka after the handler's positions.",
        ("{{handler}}", newest("handler_backlog_events", "handler")),
        ("{{handler}}, of running bridges", "sum by (handler) (bridge_lag_events)"),
    ),
    lines(
        "Oldest not applied",
        "Age of the oldest event in Kafka that the handler has not applied.",
        ("{{handler}}", newest("handler_oldest_unapplied_seconds", "handler")),
        unit="s",
        bound=bound_of("HandlerLag"),
    ),
    lines(
        "Commit to effect, 99 %",
        "Time for the oldest event of each transaction.",
        ("{{handler}}", quantile(0.99, "effects_commit_to_effect_seconds", "handler")),
        unit="s",
    ),
    lines(
        "Retention used",
        "At 100 % Kafka deletes events that are not applied.",
        ("{{handler}}", newest("handler_retention_used_ratio", "handler")),
        unit="percentunit",
        bound=bound_of("RetentionNear"),
    ),
    lines(
        "Paused",
        "1 while an operator, or the circuit, has paused the handler.",
        ("{{handler}}", newest("handler_paused", "handler")),
        ("{{handler}}, by its circuit", newest("handler_circuit_open", "handler")),
    ),
    lines(
        "Canaries",
        "Age of the newest canary that the handler has passed; one is sent every minute.",
        ("{{handler}}", newest("handler_canary_age_seconds", "handler")),
        unit="s",
        bound=bound_of("CanaryLate"),
    ),
    lines(
        "Chunks",
        "Chunks per second: sent by bridges, sent again, without effect, rolled back.",
        ("{{handler}} sent", rate("bridge_chunks_sent_total", "handler")),
        ("{{handler}} again: {{reason}}", rate("bridge_chunks_retried_total", "handler", "reason")),
        (
            "{{handler}} no effect: {{reason}}",
            rate("effects_chunks_refused_total", "handler", "reason"),
        ),
        ("{{handler}} rolled back", rate("effects_chunks_failed_total", "handler")),
    ),
    lines(
        "Repetitions",
        "Events per second that were applied already; they change nothing.",
        ("{{handler}}", rate("effects_duplicates_total", "handler")),
    ),
    lines(
        "Bridges",
        "Replaced clients and lost positions per second; partitions whose position is lost, or that are not read.",
        ("{{handler}} client replaced", rate("bridge_consumer_stalled_total", "handler")),
        ("{{handler}} position lost", rate("bridge_position_lost_total", "handler")),
        (
            "{{handler}} partitions with a lost position",
            "sum by (handler) (bridge_positions_out_of_range)",
        ),
        ("{{handler}} partitions unread", newest("handler_partitions_unread", "handler")),
    ),
    lines(
        "Types that are not known",
        "Own events: waiting partitions and parked events. Foreign events: skipped per second.",
        (
            "{{handler}} waits before {{type}}",
            "sum by (handler, type) (bridge_unknown_type_waiting)",
        ),
        (
            "{{handler}} parked {{type}}",
            newest("dead_letters_unknown_type", "handler", "type"),
        ),
        (
            "{{handler}} skips {{type}}",
            rate("bridge_foreign_types_total", "handler", "type"),
        ),
    ),
)
LETTERS = (
    lines(
        "Dead letters, open",
        "Open letters by state; parked ones wait behind another letter of their key.",
        ("{{handler}} {{state}}", newest("dead_letters_open", "handler", "state")),
    ),
    lines(
        "Oldest dead letter",
        "Resolved by a replay or a discard.",
        ("{{handler}}", newest("dead_letters_oldest_seconds", "handler")),
        unit="s",
        bound=bound_of("DeadLettersOld"),
    ),
    lines(
        "Set aside, tried again",
        "Events per second.",
        ("{{handler}} set aside", rate("dead_letters_parked_total", "handler")),
        ("{{handler}} foreign, not readable", rate("dead_letters_foreign_total", "handler")),
        (
            "{{handler}} again: {{result}}",
            rate("dead_letters_redriven_total", "handler", "result"),
        ),
    ),
)
UPKEEP = (
    lines(
        "Audit",
        "Missing events, waiting events older than half a minute, and seconds that the audit is behind.",
        ("{{handler}} missing", newest("audit_missing_events", "handler")),
        ("{{handler}} waiting", newest("audit_waiting_events", "handler")),
    ),
    lines(
        "Audit: ages",
        "Age of the oldest missing event, and of the first event that the audit has not read.",
        ("{{handler}} missing", newest("audit_oldest_missing_seconds", "handler")),
        ("{{handler}} behind", newest("audit_behind_seconds", "handler")),
        unit="s",
    ),
    lines(
        "Upkeep",
        "Time since each job last came to its end.",
        ("{{job}}", "min by (job) (upkeep_last_done_seconds)"),
        unit="s",
    ),
    lines(
        "Age of these gauges",
        "If this is more than a minute, the gauges above are out of date.",
        ("outbox", "time() - max(outbox_measured_timestamp_seconds)"),
        ("handlers", "time() - max(handler_measured_timestamp_seconds)"),
        unit="s",
    ),
    lines(
        "Deleted after their retention",
        "Rows per second.",
        ("{{table}}", rate("outbox_purged_total", "table")),
    ),
)


def made() -> Dashboard:
    """Every hop from the commit to the effect, and what is left over."""
    return dashboard(
        "pipeline",
        "Pipeline",
        "The hops of an event: outbox, drain, Kafka, bridge, handler; dead letters; audit and upkeep.",
        [*NUMBERS, *OUTBOX, *HANDLERS, *LETTERS, *UPKEEP],
    )
