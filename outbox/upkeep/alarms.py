"""The alarms of the platform; docs/operations.md says what to do about each."""

from __future__ import annotations

from outbox.watching import Alarm

__all__ = ["ALARMS"]

_OUTBOX = (
    Alarm(
        name="OutboxOldestAge",
        figure="outbox_oldest_pending_seconds",
        bound=30,
        seconds=60,
        critical=True,
        sentence="A committed event has waited {value} for Kafka.",
    ),
    Alarm(
        name="OutboxBacklogGrowing",
        figure="outbox_pending_events",
        bound=1000,
        seconds=600,
        growing=True,
        sentence="Committed events that wait for Kafka: {value}, and their number grows.",
    ),
    Alarm(
        name="KafkaRefuses",
        figure="outbox_held_events",
        bound=0,
        critical=True,
        sentence="Kafka refuses a message; {value} later events of its key are held.",
    ),
    Alarm(
        name="FloorUndercut",
        figure="outbox_floor_undercut_total",
        bound=0,
        rises=600,
        critical=True,
        sentence="Committed events below a drain's floor: {value}. Claims have skipped them for a minute or more.",
    ),
    Alarm(
        name="EventsWithoutRoute",
        figure="outbox_unclaimable_events",
        bound=0,
        seconds=120,
        critical=True,
        sentence="No drain takes {value} pending events: their topic is in no wiring, or their lane does not exist.",
    ),
    Alarm(
        name="LanesPaused",
        figure="outbox_lanes_paused",
        bound=0,
        seconds=1800,
        sentence="Paused lanes: {value}. No drain claims them.",
    ),
    Alarm(
        name="LaneHeld",
        figure="outbox_lane_held_seconds",
        bound=15,
        seconds=30,
        sentence="A database session has held a lane for {value}; a drain may hold one for 8 s.",
    ),
)
_HANDLERS = (
    Alarm(
        name="HandlerLag",
        figure="handler_oldest_unapplied_seconds",
        bound=60,
        seconds=120,
        critical=True,
        sentence="The handler has not applied an event that is {value} old.",
    ),
    Alarm(
        name="CanaryLate",
        figure="handler_canary_age_seconds",
        bound=180,
        seconds=60,
        critical=True,
        sentence="The handler passed its last canary {value} ago; one is sent every minute.",
    ),
    Alarm(
        name="HandlerBacklogGrowing",
        figure="handler_backlog_events",
        bound=1000,
        seconds=600,
        growing=True,
        sentence="The handler is {value} messages behind, and their number grows.",
    ),
    Alarm(
        name="HandlerPaused",
        figure="handler_paused",
        bound=0,
        seconds=1800,
        sentence="The handler is paused: it applies nothing until somebody resumes it.",
    ),
    Alarm(
        name="CircuitOpen",
        figure="handler_circuit_open",
        bound=0,
        critical=True,
        sentence="The handler failed so often that its circuit has paused it.",
    ),
    Alarm(
        name="RetentionNear",
        figure="handler_retention_used_ratio",
        bound=0.5,
        seconds=300,
        critical=True,
        sentence="The handler has used {value} of its topic's retention; at 100% Kafka deletes events that it has not applied.",
    ),
    Alarm(
        name="PositionLost",
        figure="bridge_positions_out_of_range",
        bound=0,
        critical=True,
        sentence="Kafka does not hold the handler's next event in {value} partitions: nothing of them is applied.",
    ),
    Alarm(
        name="PartitionsUnread",
        figure="handler_partitions_unread",
        bound=0,
        seconds=60,
        critical=True,
        sentence="The handler does not read {value} partitions of its topic. Run manage.py sync_routes --partitions",
    ),
)
_LETTERS = (
    Alarm(
        name="DeadLetters",
        figure='dead_letters_open{state="dead"}',
        bound=0,
        critical=True,
        sentence="Dead letters without an attempt left: {value}.",
    ),
    Alarm(
        name="KeysParked",
        figure='dead_letters_open{state="parked"}',
        bound=0,
        seconds=600,
        sentence="Events that wait behind a dead letter of their key: {value}.",
    ),
    Alarm(
        name="UnknownEventType",
        figure="dead_letters_unknown_type",
        bound=0,
        critical=True,
        sentence="Events that wait because a running release does not know their type: {value}.",
    ),
    Alarm(
        name="DeadLettersOld",
        figure="dead_letters_oldest_seconds",
        bound=86400,
        seconds=300,
        sentence="A dead letter is {value} old.",
    ),
)


def _not_done(name: str, job: str, bound: float, sentence: str) -> Alarm:
    figure = f'upkeep_last_done_seconds{{job="{job}"}}'
    return Alarm(name=name, figure=figure, bound=bound, seconds=300, absent=True, sentence=sentence)


_UPKEEP = (
    Alarm(
        name="AuditMissing",
        figure="audit_missing_events",
        bound=0,
        critical=True,
        sentence="Committed events that never reached the handler: {value}.",
    ),
    Alarm(
        name="AuditBehind",
        figure="audit_behind_seconds",
        bound=3600,
        seconds=300,
        sentence="The audit of the handler is {value} behind.",
    ),
    _not_done("AuditStandsStill", "audit", 600, "Last complete audit: {value}."),
    _not_done("SweepStandsStill", "sweep", 600, "Last check of a drain below its floors: {value}."),
    _not_done("PurgeStandsStill", "purge", 21600, "Last complete purge: {value}."),
)


def _absent(name: str, kind: str, sentence: str) -> Alarm:
    figure = f'process_up{{process="{kind}"}}'
    return Alarm(
        name=name, figure=figure, bound=0, at=True, seconds=60, critical=True, sentence=sentence
    )


_PROCESSES = (
    Alarm(
        name="DatabaseSilent",
        figure="database_given_up_total",
        bound=0,
        rises=300,
        critical=True,
        sentence="PostgreSQL does not answer: {value} connections were given up in five minutes.",
    ),
    _absent("WebAbsent", "web", "No web process answers."),
    _absent("WorkerAbsent", "worker", "No worker answers: nothing is drained or applied."),
    _absent("BridgeAbsent", "bridge", "No bridge answers: nothing is read from Kafka."),
    _absent("BeatAbsent", "beat", "Beat does not answer: no dead letter is tried again."),
    _absent("RelayAbsent", "relay", "No relay answers: nothing is taken from RabbitMQ."),
)
_RELAY = (
    Alarm(
        name="RelayNotConsuming",
        figure="relay_consuming",
        bound=0,
        at=True,
        seconds=120,
        critical=True,
        sentence="No relay consumes: RabbitMQ is unavailable, its queue is missing, or the breaker is open.",
    ),
    Alarm(
        name="RelayKafkaAway",
        figure="relay_kafka_up",
        bound=0,
        at=True,
        seconds=120,
        critical=True,
        sentence="A relay cannot send: Kafka is unavailable, its topic is missing, or it may not write to it.",
    ),
    Alarm(
        name="RelayOldestUnacked",
        figure="oldest_unacked_seconds",
        bound=300,
        seconds=60,
        sentence="A relay has not acknowledged a message for {value}.",
    ),
    Alarm(
        name="RelayCanaryLate",
        figure="relay_canary_age_seconds",
        bound=180,
        seconds=60,
        critical=True,
        sentence="The last canary that came from RabbitMQ to Kafka was sent {value} ago; one is sent every minute.",
    ),
    Alarm(
        name="RelayBacklogGrowing",
        figure="relay_queue_messages",
        bound=1000,
        seconds=600,
        growing=True,
        sentence="Messages that wait in RabbitMQ: {value}, and their number grows.",
    ),
    Alarm(
        name="RelayDeadLetters",
        figure="dead_letter_total",
        bound=0,
        rises=600,
        sentence="Messages that could not be relayed in ten minutes: {value}.",
    ),
    Alarm(
        name="RelayWithoutDedupe",
        figure="dedupe_unavailable_total",
        bound=0,
        rises=300,
        seconds=60,
        sentence="The relay works without its Redis and does not notice repetitions: {value} messages in five minutes.",
    ),
    Alarm(
        name="RelayDeadLettersWait",
        figure="relay_dead_letter_queue_messages",
        bound=0,
        sentence="Messages in the dead-letter queue: {value}. They stay until somebody replays or discards them.",
    ),
    Alarm(
        name="RelayDeadLettersRefused",
        figure="relay_dead_letters_waiting",
        bound=0,
        seconds=300,
        critical=True,
        sentence="Messages that can neither be relayed nor become dead letters: {value}.",
    ),
)
ALARMS = (*_OUTBOX, *_HANDLERS, *_LETTERS, *_UPKEEP, *_PROCESSES, *_RELAY)
