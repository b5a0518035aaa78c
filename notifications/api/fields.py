"""Query parameters of lists, and the bodies of templates."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from notifications.api.reading import variables_error
from notifications.models import Channel, Status
from notifications.queries import cursor_of
from notifications.template_text import TemplateError, check_template
from restapi.cursors import CursorField
from restapi.fields import QueryInteger, QueryMoment, QuerySerializer, Text

__all__ = [
    "LONGEST_TEMPLATE",
    "ChangedTemplateSerializer",
    "NotificationPageSerializer",
    "PreviewSerializer",
    "TemplateBody",
    "TemplateSerializer",
    "VariablesField",
]

DEFAULT_PAGE = 20
LARGEST_PAGE = 100
LONGEST_TEMPLATE = 20_000


class NotificationPageSerializer(QuerySerializer):
    """Query parameters of a list. Times are RFC 3339, UTC without an offset; a date is its midnight."""

    status = serializers.ChoiceField(Status.choices, required=False)
    channel = serializers.ChoiceField(Channel.choices, required=False)
    recipient = serializers.CharField(max_length=2048, required=False, trim_whitespace=False)
    batch_id = serializers.UUIDField(required=False)
    date_from = QueryMoment(required=False, help_text="Created then or later.")
    date_to = QueryMoment(required=False, help_text="Created before.")
    page_size = QueryInteger(min_value=1, max_value=LARGEST_PAGE, default=DEFAULT_PAGE)
    cursor = CursorField(
        cursor_of,
        wrong="Must be the next_cursor of a page.",
        pattern=r"^[A-Za-z0-9_-]{21}[AQgw]$",  # 16 bytes in base64url
        required=False,
        help_text="`next_cursor` of the page before.",
    )


class TemplateBody(Text):
    """A text in the grammar of templates."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=LONGEST_TEMPLATE, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        body = super().to_internal_value(data)
        try:
            check_template(body)
        except TemplateError as error:
            raise serializers.ValidationError(str(error)) from error
        return body


class TemplateSerializer(serializers.Serializer[object]):
    """{"name", "channel", "body"}"""

    name = Text(max_length=255)
    channel = serializers.ChoiceField(Channel.choices)
    body = TemplateBody()


class ChangedTemplateSerializer(TemplateSerializer):
    """The same of a template that is there: its channel may be left out, and is what it was."""

    channel = serializers.ChoiceField(Channel.choices, required=False)


class VariablesField(serializers.Field[Any, Any, Any, Any]):
    """An object of strings."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        error = variables_error(data)
        if error is not None:
            raise serializers.ValidationError(error)
        return dict(data)


class PreviewSerializer(serializers.Serializer[object]):
    """{"variables"}"""

    variables = VariablesField(required=False, default=dict)
