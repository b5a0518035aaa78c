"""The bodies and answers of the notifications API, for its document alone.

notifications/api/reading.py says what is valid, and the property test of all operations holds this to it.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from notifications.models import Channel, Outcome, Priority, Status
from restapi.fields import Text
from restapi.openapi import WITHOUT_NUL, ErrorBody, Moment

__all__ = [
    "TEMPLATE_BODY",
    "VARIABLES",
    "AcceptedBatchSerializer",
    "Attempts",
    "BatchSerializer",
    "CancelledBatch",
    "ChangedSerializer",
    "KeyTakenSerializer",
    "Listed",
    "Metrics",
    "NewBatchSerializer",
    "NewNotificationSerializer",
    "NotNowSerializer",
    "NotificationSerializer",
    "PreviewShape",
    "TemplateShape",
    "Templates",
]

VARIABLES: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": WITHOUT_NUL, "maxLength": 10_000},
    "propertyNames": {"pattern": WITHOUT_NUL, "maxLength": 255},
    "maxProperties": 100,
}
TEMPLATE_BODY = (
    r"^(?=[^\u0000]{1,20000}$)(?=[^\u0000]*[^\s\u0000\u001c-\u001f\u0085])"
    r"(?:[^{]|\{(?!\{)|\{\{ *\.[A-Za-z_][A-Za-z0-9_]* *\}\})+$"
)


@extend_schema_field(VARIABLES | {"type": ["object", "null"]})
class Variables(serializers.Field[Any, Any, Any, Any]):
    """Name -> text."""


@extend_schema_field({"type": ["string", "null"], "format": "date-time"})
class Ahead(serializers.Field[Any, Any, Any, Any]):
    """A time with its zone, later than now and at most a year ahead."""


class NewNotificationSerializer(serializers.Serializer[object]):
    """What to send, to whom, and when."""

    recipient = Text(
        max_length=2048,
        help_text="sms: a number in E.164. email: an address. push: a token, at most 2,048 bytes.",
    )
    channel = serializers.ChoiceField(Channel.choices)
    content = Text(
        required=False,
        allow_null=True,
        help_text="At most 160 characters for sms, 10,000 for email, 4,096 for push. With a "
        "template it is sent only if a variable is missing, and is not checked otherwise; "
        "without a template it is required.",
    )
    priority = serializers.ChoiceField(
        Priority.choices, required=False, allow_null=True, help_text="Without one: normal."
    )
    idempotency_key = Text(
        max_length=255,
        required=False,
        allow_null=True,
        help_text="Kept for 24 hours. The same notification with a known key gets a 409 with "
        "the fields of the first one; a different notification gets a 422.",
    )
    scheduled_at = Ahead(required=False, help_text="Not sent before.")
    expires_at = Ahead(
        required=False,
        help_text="Not sent later. Without one: a day, for high an hour, after creation or schedule.",
    )
    template_id = serializers.UUIDField(required=False, allow_null=True)
    template_variables = Variables(required=False)


class NewBatchSerializer(serializers.Serializer[object]):
    """Notifications to accept together."""

    notifications = serializers.ListSerializer[object](
        child=NewNotificationSerializer(), min_length=1, max_length=1000
    )


@extend_schema_field({"type": ["object", "null"], "additionalProperties": {"type": "string"}})
class ToldVariables(serializers.Field[Any, Any, Any, Any]):
    """As they were given."""


class NotificationSerializer(serializers.Serializer[object]):
    """A notification as it is."""

    id = serializers.UUIDField()
    batch_id = serializers.UUIDField(allow_null=True)
    idempotency_key = serializers.CharField(allow_null=True)
    recipient = serializers.CharField()
    channel = serializers.ChoiceField(Channel.choices)
    content = serializers.CharField(help_text="As it is sent.")
    priority = serializers.ChoiceField(Priority.choices)
    status = serializers.ChoiceField(Status.choices)
    provider_message_id = serializers.CharField(allow_null=True)
    scheduled_at = Moment(allow_null=True)
    expires_at = Moment()
    sent_at = Moment(allow_null=True)
    failed_at = Moment(allow_null=True)
    retry_count = serializers.IntegerField(help_text="Attempts that failed.")
    max_retries = serializers.IntegerField(help_text="Attempts allowed.")
    error_message = serializers.CharField(allow_null=True)
    template_id = serializers.UUIDField(allow_null=True)
    template_variables = ToldVariables()
    rendered = serializers.BooleanField(help_text="Whether the content is the template's.")
    created_at = Moment()
    updated_at = Moment()


class KeyTakenSerializer(ErrorBody):
    """The key belongs to an equal notification, whose fields stand here; or, without them, the first
    request with it still runs."""

    def get_fields(self) -> dict[str, Any]:
        stored = NotificationSerializer().get_fields()
        for field in stored.values():
            field.required = False
        return {**super().get_fields(), **stored}


class Listed(serializers.Serializer[object]):
    """A page."""

    data = NotificationSerializer(many=True)  # type: ignore[assignment]  # it becomes no attribute
    next_cursor = serializers.CharField(allow_null=True, help_text="Null on the last page.")


class AttemptSerializer(serializers.Serializer[object]):
    """One try to send it."""

    attempt = serializers.IntegerField()
    at = Moment()
    provider = serializers.CharField(allow_null=True)
    outcome = serializers.ChoiceField(Outcome.choices, allow_null=True)
    status_code = serializers.IntegerField(allow_null=True)
    latency_ms = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    next_attempt_at = Moment(allow_null=True)


class Attempts(serializers.Serializer[object]):
    """In order."""

    data = AttemptSerializer(many=True)  # type: ignore[assignment]  # it becomes no attribute


class ChangedSerializer(serializers.Serializer[object]):
    """What it is now."""

    status = serializers.ChoiceField(Status.choices)


class NotNowSerializer(ErrorBody):
    """Its status does not allow this."""

    # Not there in the 409 of an idempotency key whose first request still runs.
    status = serializers.ChoiceField(Status.choices, required=False)


class BatchSerializer(serializers.Serializer[object]):
    """A batch and what has become of its notifications."""

    id = serializers.UUIDField()
    total_count = serializers.IntegerField()
    pending_count = serializers.IntegerField(help_text="Scheduled and processing included.")
    delivered_count = serializers.IntegerField()
    failed_count = serializers.IntegerField()
    cancelled_count = serializers.IntegerField()
    created_at = Moment()


class AcceptedBatchSerializer(serializers.Serializer[object]):
    """The batch, and its notifications in the order they were given."""

    batch = BatchSerializer()
    notifications = NotificationSerializer(many=True)


class CancelledBatch(serializers.Serializer[object]):
    """How many were cancelled, and the batch as it is then."""

    cancelled = serializers.IntegerField()
    batch = BatchSerializer()


@extend_schema_serializer(component_name="Template")
class TemplateShape(serializers.Serializer[object]):
    """A template."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    channel = serializers.ChoiceField(Channel.choices)
    body = serializers.CharField()
    created_at = Moment()
    updated_at = Moment()


class Templates(serializers.Serializer[object]):
    """By name."""

    data = TemplateShape(many=True)  # type: ignore[assignment]  # it becomes no attribute


@extend_schema_serializer(component_name="Preview")
class PreviewShape(serializers.Serializer[object]):
    """The text."""

    content = serializers.CharField(allow_blank=True)


class ChannelMetrics(serializers.Serializer[object]):
    """Of one channel."""

    sent = serializers.IntegerField()
    failed = serializers.IntegerField()
    avg_latency_ms = serializers.FloatField()
    success_rate = serializers.FloatField(help_text="0 to 100.")


class Channels(serializers.Serializer[object]):
    """Each channel's."""

    sms = ChannelMetrics()
    email = ChannelMetrics()
    push = ChannelMetrics()


class Metrics(serializers.Serializer[object]):
    """Since the beginning."""

    channels = Channels()
