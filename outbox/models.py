"""Tables of the backbone: state and constraints, no I/O."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import MD5, Now

__all__ = [
    "CIRCUIT_BREAKER",
    "CLOCK",
    "AuditOpen",
    "BridgePosition",
    "DeadLetter",
    "DeadLetterAction",
    "HandlerControl",
    "InboxReceipt",
    "OperatorAction",
    "OutboxEvent",
    "OutboxLane",
    "UpkeepMark",
]

CIRCUIT_BREAKER = "circuit"  # changed_by of a handler that its circuit has paused
# For updates: the time itself, where Now() is that at which the statement began.
CLOCK = models.Func(function="clock_timestamp", output_field=models.DateTimeField())


class OutboxEvent(models.Model):
    """One committed event. Its id is drawn under the lock of its key, so ids follow commits per key."""

    class Status(models.IntegerChoices):
        NEW = 0, "new"
        PUBLISHED = 1, "published"
        HELD = 2, "held"
        DEAD = 3, "dead"

    id = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    lane = models.SmallIntegerField()
    topic = models.TextField()
    key = models.TextField()
    type = models.TextField()
    source = models.TextField()
    payload = models.TextField(
        help_text="The message's value, JSON as the topic's contract shows it."
    )
    traceparent = models.TextField(blank=True)
    correlation_id = models.TextField(blank=True)
    created_at = models.DateTimeField(
        db_default=models.Func(function="clock_timestamp"),
        help_text="When the row was written: the last statement before COMMIT.",
    )
    status = models.SmallIntegerField(choices=Status.choices, db_default=Status.NEW)
    published_at = models.DateTimeField(null=True)
    partition = models.SmallIntegerField(null=True)
    offset = models.BigIntegerField(null=True)
    headers = models.JSONField(
        null=True, help_text="Headers beside those of every event, text by name; dead letters only."
    )

    class Meta:
        db_table = "event_outbox"
        verbose_name = "outbox event"
        indexes = [
            # What a drain reads: nothing but pending rows, in order, lane by lane.
            models.Index(
                fields=["lane", "id"], name="event_outbox_pending", condition=models.Q(status=0)
            ),
            # What waits behind a message that Kafka refused.
            models.Index(
                fields=["lane", "id"], name="event_outbox_held", condition=models.Q(status=2)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"


class OutboxLane(models.Model):
    """A lane is locked by the drain that works on it and never updated by one: that would bloat it.

    A paused lane is not claimed; an operator alone pauses and resumes it.
    """

    lane = models.SmallIntegerField(primary_key=True)
    paused = models.BooleanField(db_default=False)
    paused_reason = models.TextField(blank=True, db_default="")
    paused_by = models.TextField(blank=True, db_default="")
    paused_at = models.DateTimeField(null=True)
    letters_open = models.BooleanField(
        db_default=False, help_text="A key of this lane has a message that Kafka refused."
    )
    rewinds = models.BigIntegerField(
        db_default=0, help_text="Times that rows of it were made pending again."
    )

    class Meta:
        db_table = "outbox_lane"
        verbose_name = "outbox lane"

    def __str__(self) -> str:
        return f"lane {self.lane}"


class BridgePosition(models.Model):
    """How far one handler has applied one partition: `next_offset` is the first one not applied.

    Moves only in the transaction of the effects, which makes it the confirmation (guarantees.md#r8); and over
    what is no message at the end of the log, which the bridge says (`inbox.step_over`).
    """

    id = models.BigAutoField(primary_key=True)
    handler = models.TextField()
    topic = models.TextField()
    partition = models.SmallIntegerField()
    topic_id = models.UUIDField(help_text="Kafka's id of the topic: a topic made anew has another.")
    next_offset = models.BigIntegerField()
    start_offset = models.BigIntegerField(
        db_default=0,
        help_text="Where the handler began: what lies before is not its business; "
        "-1: in an older log, so all of this one is.",
    )
    attempts = models.IntegerField(
        db_default=0, help_text="Times the chunk at next_offset was sent again."
    )
    paused = models.BooleanField(db_default=False)
    last_error = models.TextField(blank=True, db_default="")
    failed_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(db_default=Now())
    letters_open = models.BooleanField(
        db_default=False, help_text="Some key of this partition may have an open dead letter."
    )
    started_next = models.BigIntegerField(
        null=True, help_text="Effects up to this offset were begun from next_offset and not ended."
    )
    started_tries = models.SmallIntegerField(db_default=0)
    # The circuit (guarantees.md#r13), see outbox/handlers/pause.py.
    failure_run = models.IntegerField(db_default=0)
    failures = models.FloatField(db_default=0.0)
    outcomes = models.FloatField(db_default=0.0)
    failing_since = models.DateTimeField(null=True)

    class Meta:
        db_table = "bridge_position"
        verbose_name = "bridge position"
        constraints = [
            models.UniqueConstraint(
                fields=["handler", "topic", "partition"], name="bridge_position_key"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.handler} {self.topic}[{self.partition}]@{self.next_offset}"


class InboxReceipt(models.Model):
    """One handler is done with one event; written in the transaction of the effect (guarantees.md#r9)."""

    class Outcome(models.IntegerChoices):
        APPLIED = 0, "applied"
        PARKED = 1, "parked"
        DISCARDED = 2, "discarded"

    id = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField()
    handler = models.TextField()
    outcome = models.SmallIntegerField(choices=Outcome.choices, db_default=Outcome.APPLIED)
    applied_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))

    class Meta:
        db_table = "inbox_receipt"
        verbose_name = "inbox receipt"
        constraints = [
            models.UniqueConstraint(fields=["event_id", "handler"], name="inbox_receipt_key"),
        ]

    def __str__(self) -> str:
        return f"{self.handler} {self.event_id}"


class DeadLetter(models.Model):
    """One event that one handler, or the drain, could not process; kept until somebody resolves it.

    Open letters of one (handler, topic, partition, key) stand in the order of their ids: the first
    is the head, what comes behind it is parked (guarantees.md#r12). Text that PostgreSQL cannot hold is
    written as `envelope.to_column` does it.
    """

    class State(models.IntegerChoices):
        RETRYING = 0, "retrying"
        PARKED = 1, "parked"
        DEAD = 2, "dead"
        APPLIED = 3, "applied"
        DISCARDED = 4, "discarded"

    id = models.BigAutoField(primary_key=True)
    handler = models.TextField()
    event_id = models.UUIDField()
    topic = models.TextField()
    topic_id = models.UUIDField(null=True)
    partition = models.SmallIntegerField(null=True)
    offset = models.BigIntegerField(null=True)
    key = models.TextField()
    type = models.TextField(blank=True)
    source = models.TextField(blank=True)
    event_time = models.TextField(blank=True)
    payload = models.TextField(blank=True)
    traceparent = models.TextField(blank=True)
    correlation_id = models.TextField(blank=True)
    state = models.SmallIntegerField(choices=State.choices)
    attempts = models.IntegerField(db_default=0, help_text="Times its effect was begun.")
    next_attempt_at = models.DateTimeField(
        null=True, help_text="When it is due; while it is being tried, the end of the lease."
    )
    error = models.TextField(blank=True)
    failed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))
    replay_count = models.IntegerField(db_default=0)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.TextField(blank=True, db_default="")
    note = models.TextField(blank=True, db_default="")

    class Meta:
        db_table = "dead_letter"
        verbose_name = "dead letter"
        constraints = [
            models.UniqueConstraint(
                fields=["handler", "event_id"],
                name="dead_letter_open_event",
                condition=models.Q(state__lt=3),
            ),
        ]
        indexes = [
            models.Index(
                fields=["handler", "next_attempt_at"],
                name="dead_letter_due",
                condition=models.Q(state=0),
            ),
            # md5, because a key may be longer than an index entry.
            models.Index(
                "handler",
                "topic",
                MD5("key"),
                "id",
                name="dead_letter_open_key",
                condition=models.Q(state__lt=3),
            ),
            models.Index(
                fields=["handler", "topic", "partition"],
                name="dead_letter_open_place",
                condition=models.Q(state__lt=3),
            ),
            models.Index(
                fields=["state", "id"], name="dead_letter_open", condition=models.Q(state__lt=3)
            ),
            models.Index(
                fields=["handler", "state", "id"],
                name="dead_letter_open_handler",
                condition=models.Q(state__lt=3),
            ),
            models.Index(fields=["event_id"], name="dead_letter_event"),
            # See outbox/dead_letters/unknown_type.py.
            models.Index(
                fields=["handler", "type"],
                name="dead_letter_unknown_type",
                condition=models.Q(state=1, error__startswith="unknown type"),
            ),
            # What the purge looks for.
            models.Index(
                fields=["resolved_at"],
                name="dead_letter_resolved",
                condition=models.Q(state__gte=3),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.handler} {self.event_id} {self.State(self.state).label}"


class DeadLetterAction(models.Model):
    """Who did what with a dead letter, and when."""

    id = models.BigAutoField(primary_key=True)
    letter = models.ForeignKey(DeadLetter, models.CASCADE, related_name="actions")
    action = models.TextField()
    by = models.TextField()
    note = models.TextField(blank=True)
    at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))

    class Meta:
        db_table = "dead_letter_action"
        verbose_name = "dead letter action"

    def __str__(self) -> str:
        return f"{self.action} by {self.by}"


class HandlerControl(models.Model):
    """Whether a handler may run; `bridge_position.paused` is what its chunks look at."""

    handler = models.TextField(primary_key=True)
    paused = models.BooleanField(db_default=False)
    reason = models.TextField(blank=True, db_default="")
    changed_by = models.TextField(blank=True, db_default="")
    changed_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(
        null=True, help_text="Set by the circuit: what was parked since is tried again at resume."
    )
    parks_failures_until = models.DateTimeField(
        null=True, help_text="Until then failures are parked and its circuit does not trip."
    )

    class Meta:
        db_table = "handler_control"
        verbose_name = "handler"

    def __str__(self) -> str:
        return self.handler

    @property
    def tripped(self) -> bool:
        return self.paused and self.changed_by == CIRCUIT_BREAKER


class OperatorAction(models.Model):
    """What somebody did by hand, or a circuit by itself; written by outbox/operator_log.py."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))
    by = models.TextField()
    what = models.TextField(help_text="pause, resume, replay, discard, reset, take, stop.")
    subject = models.TextField(help_text="On what.")
    why = models.TextField(blank=True, db_default="")
    asked = models.IntegerField(null=True, help_text="How many things it is about.")
    done = models.IntegerField(db_default=0)
    skipped = models.IntegerField(db_default=0, help_text="Left as they were.")
    ended_at = models.DateTimeField(null=True, help_text="Empty while it is under way.")
    outcome = models.TextField(blank=True, db_default="")
    once = models.UUIDField(
        null=True, unique=True, help_text="Of the form: sent twice it acts once."
    )
    run = models.JSONField(null=True, help_text="What is still to be done, and how fast.")

    class Meta:
        db_table = "operator_action"
        verbose_name = "operator action"
        indexes = [
            models.Index(
                fields=["id"],
                name="operator_action_open",
                condition=models.Q(ended_at=None, run__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.what} of {self.subject} by {self.by}"


class UpkeepMark(models.Model):
    """How far a job of the upkeep has come, and when it was last done: `audit:<handler>`, `purge`, …."""

    name = models.TextField(primary_key=True)
    row_id = models.BigIntegerField(
        db_default=0, help_text="Rows up to this id need not be looked at again."
    )
    done_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))

    class Meta:
        db_table = "outbox_upkeep"
        verbose_name = "upkeep mark"

    def __str__(self) -> str:
        return f"{self.name}@{self.row_id}"


class AuditOpen(models.Model):
    """An event behind the audit's mark that one handler is not done with: looked at every time."""

    pk = models.CompositePrimaryKey("handler", "outbox_id")
    handler = models.TextField()
    outbox_id = models.BigIntegerField()
    state = models.TextField()

    class Meta:
        db_table = "audit_open"
        verbose_name = "open event of the audit"

    def __str__(self) -> str:
        return f"{self.handler} {self.outbox_id}: {self.state}"
