"""Notifications: their state, the attempts to send them, their status log. No I/O. Ids are uuid7 and
hold `created_at`, so a list in the order of ids is one in the order of time."""

from __future__ import annotations

from django.db import models
from django.db.models import Func, Q

__all__ = [
    "ATTEMPTS_ALLOWED",
    "FINISHED",
    "LENGTHS",
    "WAITING",
    "Attempt",
    "Batch",
    "Channel",
    "ChannelControl",
    "ChannelFigures",
    "Notification",
    "NotificationKey",
    "Outcome",
    "Priority",
    "ProviderHold",
    "Sender",
    "Status",
    "StatusChange",
    "Template",
]


class Channel(models.TextChoices):
    """How it is sent."""

    SMS = "sms"
    EMAIL = "email"
    PUSH = "push"


class Priority(models.TextChoices):
    """Which notifications go first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Status(models.TextChoices):
    """The life of a notification. One that waits for its next attempt is pending again."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    PROCESSING = "processing"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(models.TextChoices):
    """How an attempt ended. One that is under way has none.

    delivered  the provider took it
    failed     it did not, and the attempt is used up
    refused    it never will: no further attempt
    held       the provider asked to wait, a probe of the breaker failed, or the claim led to no call: no
               attempt is used up
    unknown    its lease ended without a word; the attempt is used up
    late       its sender reported after its lease had ended and another had taken the row, or
               after a cancel
    """

    DELIVERED = "delivered"
    FAILED = "failed"
    REFUSED = "refused"
    HELD = "held"
    UNKNOWN = "unknown"
    LATE = "late"


# Characters of content, by channel (contract of POST /notifications).
LENGTHS: dict[str, int] = {Channel.SMS: 160, Channel.EMAIL: 10_000, Channel.PUSH: 4_096}
# Attempts allowed, by priority.
ATTEMPTS_ALLOWED: dict[str, int] = {Priority.HIGH: 5, Priority.NORMAL: 3, Priority.LOW: 2}
# What can still be cancelled, and what changes no more by itself.
WAITING = (Status.PENDING, Status.SCHEDULED)
FINISHED = (Status.DELIVERED, Status.FAILED, Status.CANCELLED)


class Batch(models.Model):
    """Notifications that were accepted together. Its counts are those of its members."""

    id = models.UUIDField(primary_key=True)
    caller = models.CharField(max_length=255)
    total_count = models.IntegerField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "notification_batches"
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return str(self.id)


class Template(models.Model):
    """A text with `{{ .Name }}` in it, of one channel; its name is its caller's own."""

    id = models.UUIDField(primary_key=True)
    caller = models.CharField(max_length=255)
    name = models.CharField(max_length=255)
    channel = models.CharField(max_length=8, choices=Channel)
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Func(function="clock_timestamp"))
    updated_at = models.DateTimeField(db_default=Func(function="clock_timestamp"))

    class Meta:
        db_table = "notification_templates"
        constraints = [
            models.UniqueConstraint(fields=["caller", "name"], name="notification_templates_name"),
            models.CheckConstraint(
                condition=Q(channel__in=Channel.values), name="notification_templates_channel"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Notification(models.Model):
    """One message to one recipient.

    The lease is as in outbox/database/leases.py, with a UUID as id: `due_at` is when the row may be
    claimed, null while it is not ready; while it is processing it is the end of the lease.
    `attempt` rises with each claim, and whoever writes names it.
    """

    id = models.UUIDField(primary_key=True)
    caller = models.CharField(max_length=255)
    # No foreign keys: each would be looked up for every new row, and a template may be deleted.
    batch_id = models.UUIDField(null=True)
    recipient = models.TextField()
    channel = models.CharField(max_length=8, choices=Channel)
    priority = models.CharField(max_length=8, choices=Priority)
    content = models.TextField(help_text="As it is sent: rendered.")
    rendered = models.BooleanField(db_default=False)
    template_id = models.UUIDField(null=True)
    template_name = models.CharField(max_length=255, null=True)
    template_variables = models.JSONField(null=True)
    idempotency_key = models.CharField(max_length=255, null=True)

    status = models.CharField(max_length=16, choices=Status)
    scheduled_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()
    ready_at = models.DateTimeField(null=True, help_text="When a handler first made it ready.")
    due_at = models.DateTimeField(null=True, help_text="From when it may be claimed.")
    waits_for = models.CharField(
        max_length=8, db_default="", help_text="Why due_at is ahead: retry, held or nothing."
    )
    attempt = models.IntegerField(db_default=0, help_text="Number of the last claim.")
    retry_count = models.SmallIntegerField(db_default=0, help_text="Attempts that failed.")
    max_retries = models.SmallIntegerField(help_text="Attempts allowed.")
    round = models.SmallIntegerField(db_default=0, help_text="Times it was retried by hand.")
    provider_message_id = models.TextField(null=True)
    sent_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    error_message = models.TextField(null=True)
    discarded_at = models.DateTimeField(
        null=True, help_text="When somebody decided that a failed one stays so."
    )

    traceparent = models.CharField(max_length=255, db_default="")
    correlation_id = models.CharField(max_length=255, db_default="")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "notifications"
        indexes = [
            # What may be claimed, and leases that have ended: the longest waiting first.
            models.Index(
                fields=["channel", "priority", "due_at"],
                name="notifications_due",
                condition=Q(status__in=[Status.PENDING, Status.PROCESSING], due_at__isnull=False),
            ),
            models.Index(
                fields=["scheduled_at"],
                name="notifications_scheduled",
                condition=Q(status=Status.SCHEDULED),
            ),
            models.Index(
                fields=["expires_at"],
                name="notifications_expiring",
                condition=Q(status=Status.PENDING),
            ),
            # Lists. Without a filter they read the primary key; nearly all rows are delivered.
            models.Index(fields=["caller", "id"], name="notifications_of_caller"),
            models.Index(fields=["recipient", "id"], name="notifications_to"),
            models.Index(
                fields=["batch_id", "id"],
                name="notifications_of_batch",
                condition=Q(batch_id__isnull=False),
            ),
            models.Index(
                fields=["status", "id"],
                name="notifications_undelivered",
                condition=~Q(status=Status.DELIVERED),
            ),
            # What somebody has to look at, however much was discarded before it.
            models.Index(
                fields=["id"],
                name="notifications_failed",
                condition=Q(status=Status.FAILED, discarded_at__isnull=True),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=Status.values), name="notifications_status_known"
            ),
            # Nobody can claim what is not to be sent: neither before its time nor after its end.
            models.CheckConstraint(
                condition=Q(due_at__isnull=True)
                | Q(status__in=[Status.PENDING, Status.PROCESSING]),
                name="notifications_due_while_open",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class NotificationKey(models.Model):
    """An idempotency key of a body: what was accepted under it, for 24 hours.

    A transaction that inserts a row holds the advisory lock of its id (notifications/keys.py). The prune
    deletes old rows under their row locks alone (notifications/upkeep.py)."""

    id = models.UUIDField(primary_key=True)  # hash of caller and key
    fingerprint = models.UUIDField()  # hash of the parsed fields with their defaults
    notification_id = models.UUIDField()
    created_at = models.DateTimeField(db_default=Func(function="clock_timestamp"))

    class Meta:
        db_table = "notification_keys"
        indexes = [models.Index(fields=["created_at"], name="notification_keys_age")]


class Attempt(models.Model):
    """One try to send a notification, written by its claim, closed by what came of it."""

    id = models.BigAutoField(primary_key=True)
    notification = models.ForeignKey(
        Notification, on_delete=models.DO_NOTHING, related_name="attempts", db_constraint=False
    )
    number = models.IntegerField(help_text="The notification's `attempt` while it was held.")
    at = models.DateTimeField(db_default=Func(function="clock_timestamp"))
    provider = models.CharField(max_length=64, null=True)
    outcome = models.CharField(max_length=16, choices=Outcome, null=True)
    status_code = models.IntegerField(null=True)
    latency_ms = models.IntegerField(null=True)
    error = models.TextField(null=True)
    next_attempt_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "notification_attempts"
        constraints = [
            models.UniqueConstraint(
                fields=["notification", "number"], name="notification_attempts_number"
            )
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}"


class StatusChange(models.Model):
    """One change of a status; append-only. Creation is none.

    Writers leave `seq` null and hold the row of the notification, so the ids of one notification
    follow its commits. A numberer gives committed rows their `seq`: who has seen n has seen all
    before n. The row with the highest `seq` is never deleted: the next number follows from it.
    """

    id = models.BigAutoField(primary_key=True)
    seq = models.BigIntegerField(null=True)
    notification_id = models.UUIDField()
    batch_id = models.UUIDField(null=True)
    caller = models.CharField(max_length=255)
    channel = models.CharField(max_length=8)
    previous = models.CharField(max_length=16)
    status = models.CharField(max_length=16)
    latency_ms = models.IntegerField(
        null=True, help_text="Of a delivery: accepted, or scheduled, until sent."
    )
    at = models.DateTimeField(db_default=Func(function="clock_timestamp"))

    class Meta:
        db_table = "notification_status_log"
        indexes = [
            models.Index(
                fields=["id"],
                name="notification_status_unnumbered",
                condition=Q(seq__isnull=True),
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["seq"],
                name="notification_status_seq",
                condition=Q(seq__isnull=False),
            )
        ]


class ChannelFigures(models.Model):
    """What GET /metrics shows of a channel, up to and with a `seq` of the status log.

    `latency_ms` is the sum over what was delivered.
    """

    channel = models.CharField(max_length=8, primary_key=True)
    delivered = models.BigIntegerField(db_default=0)
    failed = models.BigIntegerField(db_default=0)
    latency_ms = models.BigIntegerField(db_default=0)
    through_seq = models.BigIntegerField(db_default=0)

    class Meta:
        db_table = "notification_figures"
        verbose_name_plural = "channel figures"


class Sender(models.Model):
    """A process that sends. Those seen of late share the limit while Redis is lost."""

    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=255)
    seen_at = models.DateTimeField(db_default=Func(function="clock_timestamp"))

    class Meta:
        db_table = "notification_senders"


class ProviderHold(models.Model):
    """A provider has asked to wait with a channel (429, or 503 with Retry-After). It names the last
    such wait; one that is over says nothing any more."""

    id = models.BigAutoField(primary_key=True)
    provider = models.CharField(max_length=64)
    channel = models.CharField(max_length=8, choices=Channel)
    until = models.DateTimeField()

    class Meta:
        db_table = "notification_holds"
        verbose_name_plural = "providers"
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "channel"], name="notification_holds_provider"
            )
        ]

    def __str__(self) -> str:
        return f"{self.provider}, {self.channel}"


class ChannelControl(models.Model):
    """A channel that somebody has paused, or had. One without a row runs."""

    channel = models.CharField(max_length=8, primary_key=True, choices=Channel)
    paused = models.BooleanField(db_default=False)
    reason = models.TextField(db_default="")
    changed_by = models.TextField(db_default="")
    changed_at = models.DateTimeField(db_default=Func(function="clock_timestamp"))

    class Meta:
        db_table = "notification_channels"
        verbose_name_plural = "channels"

    def __str__(self) -> str:
        return self.channel
