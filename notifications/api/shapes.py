"""The bodies and answers of the notifications API, for its document alone.

notifications/api/reading.py says what is valid, and the property test of all operations holds this to it.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework.serializers import (
    BooleanField,
    CharField,
    ChoiceField,
    Field,
    FloatField,
    IntegerField,
    ListSerializer,
    UUIDField,
)

from notifications.models import Channel, Outcome, Priority, Status
from restapi.fields import Text
from restapi.openapi import WITHOUT_NUL, ErrorBody, Moment
from restapi.operations import shape

__all__ = [
    "TEMPLATE_BODY",
    "VARIABLES",
    "AcceptedBatch",
    "Attempts",
    "Batch",
    "CancelledBatch",
    "Changed",
    "KeyTakenSerializer",
    "Listed",
    "Metrics",
    "NewBatch",
    "NewNotification",
    "NotNow",
    "Notification",
    "Preview",
    "Template",
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
class Variables(Field[Any, Any, Any, Any]):
    """Name -> text."""


@extend_schema_field({"type": ["string", "null"], "format": "date-time"})
class Ahead(Field[Any, Any, Any, Any]):
    """A time with its zone, later than now and at most a year ahead."""


@extend_schema_field({"type": ["object", "null"], "additionalProperties": {"type": "string"}})
class ShownVariables(Field[Any, Any, Any, Any]):
    """As they were given."""


NewNotification = shape(
    "NewNotification",
    "What to send, to whom, and when.",
    recipient=Text(
        max_length=2048,
        help_text="sms: a number in E.164. email: an address. push: a token, at most 2,048 bytes.",
    ),
    channel=ChoiceField(Channel.choices),
    content=Text(
        required=False,
        allow_null=True,
        help_text="At most 160 characters for sms, 10,000 for email, 4,096 for push. With a "
        "template it is sent only if a variable is missing, and is not checked otherwise; "
        "without a template it is required.",
    ),
    priority=ChoiceField(
        Priority.choices, required=False, allow_null=True, help_text="Without one: normal."
    ),
    idempotency_key=Text(
        max_length=255,
        required=False,
        allow_null=True,
        help_text="Kept for 24 hours. The same notification with a known key gets a 409 with "
        "the fields of the first one; a different notification gets a 422.",
    ),
    scheduled_at=Ahead(required=False, help_text="Not sent before."),
    expires_at=Ahead(
        required=False,
        help_text="Not sent later. Without one: a day, for high an hour, after creation or schedule.",
    ),
    template_id=UUIDField(required=False, allow_null=True),
    template_variables=Variables(required=False),
)
NewBatch = shape(
    "NewBatch",
    "Notifications to accept together.",
    notifications=ListSerializer[object](child=NewNotification(), min_length=1, max_length=1000),
)
Notification = shape(
    "Notification",
    "A notification as it is.",
    id=UUIDField(),
    batch_id=UUIDField(allow_null=True),
    idempotency_key=CharField(allow_null=True),
    recipient=CharField(),
    channel=ChoiceField(Channel.choices),
    content=CharField(help_text="As it is sent."),
    priority=ChoiceField(Priority.choices),
    status=ChoiceField(Status.choices),
    provider_message_id=CharField(allow_null=True),
    scheduled_at=Moment(allow_null=True),
    expires_at=Moment(),
    sent_at=Moment(allow_null=True),
    failed_at=Moment(allow_null=True),
    retry_count=IntegerField(help_text="Attempts that failed."),
    max_retries=IntegerField(help_text="Attempts allowed."),
    error_message=CharField(allow_null=True),
    template_id=UUIDField(allow_null=True),
    template_variables=ShownVariables(),
    rendered=BooleanField(help_text="Whether the content is the template's."),
    created_at=Moment(),
    updated_at=Moment(),
)


class KeyTakenSerializer(ErrorBody):
    """The key belongs to an equal notification, whose fields stand here; or, without them, the first
    request with it still runs."""

    def get_fields(self) -> dict[str, Any]:
        stored = Notification().get_fields()
        for field in stored.values():
            field.required = False
        return {**super().get_fields(), **stored}


Listed = shape(
    "Listed",
    "A page.",
    data=Notification(many=True),
    next_cursor=CharField(allow_null=True, help_text="Null on the last page."),
)
Attempt = shape(
    "Attempt",
    "One try to send it.",
    attempt=IntegerField(),
    at=Moment(),
    provider=CharField(allow_null=True),
    outcome=ChoiceField(Outcome.choices, allow_null=True),
    status_code=IntegerField(allow_null=True),
    latency_ms=IntegerField(allow_null=True),
    error=CharField(allow_null=True),
    next_attempt_at=Moment(allow_null=True),
)
Attempts = shape("Attempts", "In order.", data=Attempt(many=True))
Changed = shape("Changed", "What it is now.", status=ChoiceField(Status.choices))
# Its status is not there in the 409 of an idempotency key whose first request still runs.
NotNow = shape(
    "NotNow",
    "Its status does not allow this.",
    ErrorBody,
    status=ChoiceField(Status.choices, required=False),
)
Batch = shape(
    "Batch",
    "A batch and what has become of its notifications.",
    id=UUIDField(),
    total_count=IntegerField(),
    pending_count=IntegerField(help_text="Scheduled and processing included."),
    delivered_count=IntegerField(),
    failed_count=IntegerField(),
    cancelled_count=IntegerField(),
    created_at=Moment(),
)
AcceptedBatch = shape(
    "AcceptedBatch",
    "The batch, and its notifications in the order they were given.",
    batch=Batch(),
    notifications=Notification(many=True),
)
CancelledBatch = shape(
    "CancelledBatch",
    "How many were cancelled, and the batch as it is then.",
    cancelled=IntegerField(),
    batch=Batch(),
)
Template = shape(
    "Template",
    "A template.",
    id=UUIDField(),
    name=CharField(),
    channel=ChoiceField(Channel.choices),
    body=CharField(),
    created_at=Moment(),
    updated_at=Moment(),
)
Templates = shape("Templates", "By name.", data=Template(many=True))
Preview = shape("Preview", "The text.", content=CharField(allow_blank=True))
ChannelMetrics = shape(
    "ChannelMetrics",
    "Of one channel.",
    sent=IntegerField(),
    failed=IntegerField(),
    avg_latency_ms=FloatField(),
    success_rate=FloatField(help_text="0 to 100."),
)
Channels = shape(
    "Channels", "Each channel's.", **{channel: ChannelMetrics() for channel in Channel.values}
)
Metrics = shape("Metrics", "Since the beginning.", channels=Channels())
