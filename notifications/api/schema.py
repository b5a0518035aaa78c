"""The notifications API in the OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema_field

from notifications.api import shapes
from notifications.api.fields import (
    ChangedTemplateSerializer,
    NotificationPageSerializer,
    PreviewSerializer,
    TemplateBody,
    TemplateSerializer,
    VariablesField,
)
from restapi.openapi import ErrorBody
from restapi.operations import ANY_OBJECT, Body, Documents, Operations, answer, uuid_in_path

__all__ = [
    "cancel_batch",
    "cancel_notification",
    "change_template",
    "create_batch",
    "create_notification",
    "create_template",
    "delete_template",
    "get_batch",
    "get_metrics",
    "get_notification",
    "get_template",
    "list_attempts",
    "list_notifications",
    "list_templates",
    "preview_template",
    "retry_notification",
]

API = Operations("notifications")
ID = "0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f"
BATCH_ID = "0198f7a4-5c1f-7c4d-8e5a-1b2c3d4e5f60"
TEMPLATE_ID = "0198f7a4-5c20-7d5e-9f6b-2c3d4e5f6071"
AT = "2026-03-11T22:00:00.000Z"
ASKED = {"channel": "sms", "recipient": "+905000000000", "content": "Your code is 1234"}
BY_TEMPLATE = {
    "channel": "email",
    "recipient": "ann@example.com",
    "content": "Welcome!",
    "template_id": TEMPLATE_ID,
    "template_variables": {"Name": "Ann", "Code": "42"},
}
EXAMPLE = {
    "id": ID,
    "batch_id": None,
    "idempotency_key": None,
    "recipient": "+905000000000",
    "channel": "sms",
    "content": "Your code is 1234",
    "priority": "high",
    "status": "pending",
    "provider_message_id": None,
    "scheduled_at": None,
    "expires_at": "2026-03-11T23:00:00.000Z",
    **dict.fromkeys(("sent_at", "failed_at")),
    "retry_count": 0,
    "max_retries": 5,
    "error_message": None,
    **dict.fromkeys(("template_id", "template_variables")),
    "rendered": False,
    "created_at": AT,
    "updated_at": AT,
}
COUNTS = {
    "id": BATCH_ID,
    "total_count": 1,
    "pending_count": 1,
    **dict.fromkeys(("delivered_count", "failed_count", "cancelled_count"), 0),
    "created_at": AT,
}
TEMPLATE = {
    "id": TEMPLATE_ID,
    "name": "welcome_email",
    "channel": "email",
    "body": "Hello {{.Name}}, your code is {{ .Code }}.",
    "created_at": AT,
    "updated_at": AT,
}

extend_schema_field(shapes.VARIABLES)(VariablesField)
# Without two opening braces beside each other, or each of them with a name as it must be.
extend_schema_field({"type": "string", "pattern": shapes.TEMPLATE_BODY})(TemplateBody)

NOTIFICATION_ID = uuid_in_path("notification_id", "notification", ID)
BATCH = uuid_in_path("batch_id", "batch", BATCH_ID)
TEMPLATE_PARAMETER = uuid_in_path("template_id", "template", TEMPLATE_ID)
ATTEMPT = {
    "attempt": 1,
    "at": AT,
    "provider": "webhook",
    "outcome": "failed",
    "status_code": 503,
    "latency_ms": 41,
    "error": "The provider answered 503.",
    "next_attempt_at": "2026-03-11T22:00:02.113Z",
}


def _conflict(shape: Any, description: str, fields: dict[str, Any]) -> OpenApiResponse:
    value = {"error": description, "details": [], **fields}
    return answer(shape, value, description, name="conflict")


list_notifications = API.read(
    "listNotifications",
    "Notifications, newest first",
    "The caller's notifications. Pages neither repeat nor skip a notification that existed when the "
    "first page was read.",
    parameters=[NotificationPageSerializer],
    answer=answer(shapes.Listed, {"data": [EXAMPLE], "next_cursor": None}, name="page"),
)
create_notification = API.write(
    "createNotification",
    "Accept a notification",
    "It is sent as soon as the limits allow, or from `scheduled_at` on. It fails if it was not sent "
    "before `expires_at`.",
    body=Body(
        shapes.NewNotification,
        {"direct": {**ASKED, "priority": "high"}, "by a template": BY_TEMPLATE},
    ),
    answers={201: answer(shapes.Notification, EXAMPLE, name="accepted")},
    conflict=_conflict(
        shapes.KeyTakenSerializer,
        "This idempotency_key belongs to an existing notification.",
        {**EXAMPLE, "idempotency_key": "order-17-paid"},
    ),
)
create_batch = API.write(
    "createBatch",
    "Accept up to 1,000 notifications",
    "Stores all of them or none. An entry with a known `idempotency_key` is answered with the existing "
    "notification, which does not belong to the batch. The body may have 8 MiB.",
    body=Body(shapes.NewBatch, {"batch": {"notifications": [ASKED]}}),
    answers={
        201: answer(
            shapes.AcceptedBatch,
            {"batch": COUNTS, "notifications": [{**EXAMPLE, "batch_id": BATCH_ID}]},
            name="accepted",
        )
    },
)
get_notification = API.read(
    "getNotification",
    "One notification",
    parameters=[NOTIFICATION_ID],
    answer=answer(shapes.Notification, EXAMPLE, name="notification"),
    refuses=[404],
)
list_attempts = API.read(
    "listAttempts",
    "The attempts to send a notification",
    "The attempts in order; if there are very many, only the newest. A running attempt has no outcome yet.",
    parameters=[NOTIFICATION_ID],
    answer=answer(shapes.Attempts, {"data": [ATTEMPT]}, name="attempts"),
    refuses=[404],
)


def _moved(
    operation_id: str, summary: str, description: str, *, becomes: str, done: str
) -> Documents:
    """Documents what moves one notification to another status."""
    return API.write(
        operation_id,
        summary,
        description,
        parameters=[NOTIFICATION_ID],
        body=ANY_OBJECT,
        answers={200: answer(shapes.Changed, {"status": becomes}, name="changed")},
        refuses=[404],
        conflict=_conflict(
            shapes.NotNow,
            f"A notification that is processing cannot be {done}.",
            {"status": "processing"},
        ),
    )


cancel_notification = _moved(
    "cancelNotification",
    "Cancel a notification",
    "While it is pending or scheduled, also between two attempts: nobody begins to send it "
    "afterwards.",
    becomes="cancelled",
    done="cancelled",
)
retry_notification = _moved(
    "retryNotification",
    "Send a failed notification again",
    "It gets new attempts and a new time to live.",
    becomes="pending",
    done="sent again",
)
get_batch = API.read(
    "getBatch",
    "A batch",
    "The batch with its present counts; `pending_count` includes scheduled and processing.",
    parameters=[BATCH],
    answer=answer(shapes.Batch, COUNTS, name="batch"),
    refuses=[404],
)
cancel_batch = API.write(
    "cancelBatch",
    "Cancel a batch",
    "Cancels all notifications of the batch that can still be cancelled; `cancelled` is their number.",
    parameters=[BATCH],
    body=ANY_OBJECT,
    answers={
        200: answer(
            shapes.CancelledBatch,
            {"cancelled": 1, "batch": {**COUNTS, "pending_count": 0, "cancelled_count": 1}},
            name="cancelled",
        )
    },
    refuses=[404],
)
NAME_TAKEN = _conflict(ErrorBody, "There is a template named welcome_email already.", {})
list_templates = API.read(
    "listTemplates",
    "Templates, by name",
    answer=answer(shapes.Templates, {"data": [TEMPLATE]}, name="templates"),
)
create_template = API.write(
    "createTemplate",
    "Create a template",
    "A variable is written in the body as `{{.Name}}`, with any spaces inside the braces.",
    body=Body(
        TemplateSerializer,
        {"template": {k: TEMPLATE[k] for k in ("name", "channel", "body")}},
    ),
    answers={201: answer(shapes.Template, TEMPLATE, name="template")},
    conflict=NAME_TAKEN,
)
get_template = API.read(
    "getTemplate",
    "One template",
    parameters=[TEMPLATE_PARAMETER],
    answer=answer(shapes.Template, TEMPLATE, name="template"),
    refuses=[404],
)
change_template = API.write(
    "changeTemplate",
    "Change a template",
    "The template keeps its channel. Accepted notifications keep their text.",
    parameters=[TEMPLATE_PARAMETER],
    body=Body(ChangedTemplateSerializer, {"template": {k: TEMPLATE[k] for k in ("name", "body")}}),
    answers={200: answer(shapes.Template, TEMPLATE, name="template")},
    refuses=[404],
    conflict=NAME_TAKEN,
)
delete_template = API.write(
    "deleteTemplate",
    "Delete a template",
    "Notifications keep its text and its id.",
    parameters=[TEMPLATE_PARAMETER],
    keyed=False,
    answers={204: None},
    refuses=[404],
)
preview_template = API.write(
    "previewTemplate",
    "Render a template with variables",
    "Nothing is stored.",
    parameters=[TEMPLATE_PARAMETER],
    body=Body(PreviewSerializer, {"variables": {"variables": {"Name": "Ann", "Code": "42"}}}),
    keyed=False,
    answers={200: answer(shapes.Preview, {"content": "Hello Ann, your code is 42."}, name="text")},
    refuses=[404],
)
CHANNEL = {"sent": 9, "failed": 1, "avg_latency_ms": 41.5, "success_rate": 90}
get_metrics = API.read(
    "getChannelMetrics",
    "Figures of each channel",
    "`avg_latency_ms` is the time from acceptance, or the scheduled time, until the notification was sent; "
    "`success_rate` is the percentage of delivered among delivered and failed ones.",
    answer=answer(
        shapes.Metrics,
        {"channels": {"sms": CHANNEL, "email": CHANNEL, "push": CHANNEL}},
        name="metrics",
    ),
)
