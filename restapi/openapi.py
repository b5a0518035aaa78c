"""How the API documents itself: what holds for every operation, said once. Patterns are written for
ECMA 262 and Python alike."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema_field,
)
from rest_framework import serializers

__all__ = [
    "WITHOUT_NUL",
    "ErrorBody",
    "HouseSchema",
    "Moment",
    "Number",
    "errors",
    "key_parameters",
]

MOMENT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
TRACEPARENT = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
PRINTABLE = r"^[\x21-\x7e]{1,128}$"
# PostgreSQL stores no NUL; blank is what Python's strip() leaves nothing of.
WITHOUT_NUL = r"^[^\u0000]*$"
NOT_BLANK = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"

EVERYWHERE = (401, 403, 405, 429, 503)
ERRORS: dict[int, tuple[str, str]] = {
    400: ("Malformed or invalid.", "The request is not valid: see limit."),
    401: ("No key, or one that is not known.", "Send a key that is known and not revoked."),
    403: ("The key lacks the scope for this.", "This key may not do that."),
    404: ("No such path or id.", "There is no order 0198f7a4-5c1e-7000-8000-000000000000."),
    405: ("Another method.", 'Method "DELETE" not allowed.'),
    409: ("A conflict.", "Another request with this key is still running."),
    413: ("The body is larger than 1 MiB.", "The body is larger than 1048576 bytes."),
    415: ("The body is not application/json.", 'Unsupported media type "text/plain" in request.'),
    422: (
        "The idempotency key came with another body before.",
        "This Idempotency-Key was used with another body; send a new key.",
    ),
    429: ("Too many requests.", "Too many requests; try again later."),
    503: (
        "The database is unavailable, or does not answer. For a write `outcome` says what is known: "
        "`not_stored`, or `unknown`.",
        "The database is unavailable; nothing was stored, try again.",
    ),
}


@extend_schema_field({"type": "string", "format": "date-time", "pattern": MOMENT})
class Moment(serializers.Field[Any, Any, Any, Any]):
    """A time in an answer: UTC with milliseconds and Z."""


@extend_schema_field({"type": "number"})
class Number(serializers.Field[Any, Any, Any, Any]):
    """An exact decimal in an answer, without trailing zeros: 70, 42.5."""


class ErrorDetail(serializers.Serializer[object]):
    """Which field, by its path (items.0.price), and what is wrong with it."""

    field = serializers.CharField()
    message = serializers.CharField()


class ErrorBody(serializers.Serializer[object]):
    """Every error."""

    error = serializers.CharField(help_text="One sentence.")
    details = ErrorDetail(many=True)


class UnavailableBody(ErrorBody):
    """What a database that is unavailable leaves to say."""

    outcome = serializers.ChoiceField(["not_stored", "unknown"], required=False)


def errors(*codes: int) -> dict[int, OpenApiResponse]:
    """The answers for these status codes, and for those that every operation may give."""
    return {code: _error(code) for code in sorted({*codes, *EVERYWHERE})}


def _error(code: int) -> OpenApiResponse:
    description, sentence = ERRORS[code]
    value: dict[str, Any] = {"error": sentence, "details": []}
    if code == 400:
        value["details"] = [{"field": "limit", "message": "A valid integer is required."}]
    if code == 503:
        value["outcome"] = "not_stored"
    return OpenApiResponse(
        UnavailableBody if code == 503 else ErrorBody,
        description=description,
        examples=[OpenApiExample(f"error {code}", value=value)],
    )


_KEY = OpenApiParameter(
    "Idempotency-Key",
    {
        "type": "string",
        "maxLength": 255,
        "pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
    },
    OpenApiParameter.HEADER,
    description="Printable ASCII, kept for 24 hours. The same key with the same body gives the "
    "first answer again, byte for byte; with another body 422; 409 while the first still runs. "
    "Errors are not kept. Make a new key for each new request, for example a random UUID.",
    # No example: Swagger's page would fill it in, so that two readers would send one key.
)


def key_parameters(*codes: int) -> list[OpenApiParameter]:
    """The header Idempotency-Key, and what these answers say of it."""
    replayed = OpenApiParameter(
        "Idempotent-Replayed",
        {"type": "string", "enum": ["true"]},
        OpenApiParameter.HEADER,
        description="Present if this answer was given before.",
        response=[*codes],
    )
    return [_KEY, replayed]


_PRINTABLE = {"type": "string", "pattern": PRINTABLE}
# Name, description, schema, and the answers that have it; True: all.
_HEADERS: tuple[tuple[str, str, dict[str, Any], Any], ...] = (
    ("X-Request-ID", "The id that the caller sent, or a new one.", _PRINTABLE, True),
    (
        "X-Correlation-ID",
        "The events that the request causes carry the same id.",
        _PRINTABLE,
        True,
    ),
    (
        "traceparent",
        "W3C Trace Context: the caller's trace or a new one, with a span of this request.",
        {"type": "string", "pattern": TRACEPARENT},
        True,
    ),
    ("Allow", "The methods of this path.", {"type": "string"}, [405]),
    ("Retry-After", "Seconds.", {"type": "integer", "minimum": 0}, [429, 503]),
)
HEADERS = [
    OpenApiParameter(
        name, schema, OpenApiParameter.HEADER, required=True, description=text, response=codes
    )
    for name, text, schema, codes in _HEADERS
]


class HouseSchema(AutoSchema):
    """DRF's DEFAULT_SCHEMA_CLASS: the headers of every answer, and bodies that must be sent."""

    def get_override_parameters(self) -> list[Any]:
        return [*HEADERS]

    def _get_request_body(self, direction: str = "request") -> dict[str, Any] | None:
        if self.method == "DELETE":
            return self._body_of_delete()
        body: dict[str, Any] | None = super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        if body and isinstance(self.get_request_serializer(), PolymorphicProxySerializer):
            body["required"] = True  # one of several bodies: the library would call it optional
        return body

    def _body_of_delete(self) -> dict[str, Any] | None:
        """A view that takes one names its serializer and an example as `body_of_delete`. It need not be
        sent, and an empty object is as none; the library knows of no such body."""
        found = getattr(self.view, "body_of_delete", None)
        if found is None:
            return None
        serializer, example = found
        component = self.resolve_serializer(serializer, "request")
        schema = {"anyOf": [component.ref, {"type": "object", "maxProperties": 0}]}
        media = {"schema": schema, "examples": {"body": {"value": example}}}
        return {"content": {"application/json": media}}

    def _map_serializer_field(
        self, field: Any, direction: str, bypass_extensions: bool = False
    ) -> Any:
        schema = super()._map_serializer_field(  # type: ignore[no-untyped-call]
            field, direction, bypass_extensions
        )
        if isinstance(field, serializers.ListSerializer):
            for keyword, bound in (("minItems", "min_length"), ("maxItems", "max_length")):
                if (value := getattr(field, bound)) is not None:
                    schema[keyword] = value
        return schema

    def _insert_field_validators(self, field: Any, schema: dict[str, Any]) -> None:
        super()._insert_field_validators(field, schema)  # type: ignore[no-untyped-call]
        # The library adds "or empty" to a pattern; ours say themselves whether that is allowed.
        if "oneOf" in schema:
            schema |= schema.pop("oneOf")[0]


class _PlainText(OpenApiSerializerFieldExtension):
    """DRF refuses NUL in every CharField."""

    target_class = "rest_framework.fields.CharField"
    pattern = WITHOUT_NUL

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        if direction == "request":
            schema["pattern"] = self.pattern
        return schema


class _Text(_PlainText):
    target_class = "restapi.fields.Text"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        self.pattern = WITHOUT_NUL if self.target.allow_blank else NOT_BLANK
        return super().map_serializer_field(auto_schema, direction)
