"""JSON in and out, as the HTTP contract wants it: exact numbers, no surprises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, Any

import msgspec
from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

__all__ = ["BodyTooLarge", "JSONParser", "JSONRenderer", "OnlyJSON", "parse_json", "to_json"]

# How deep Python itself can go depends on who asks it: a thread of Django's less deep than others.
DEEPEST = 100
_CONTAINERS = (dict, list)
TOO_DEEP = f"The body is nested more than {DEEPEST} levels deep."

_encoder = msgspec.json.Encoder(decimal_format="number", uuid_format="canonical")


class BodyTooLarge(APIException):
    """413: nothing of the body was looked at."""

    status_code = 413
    default_detail = "The body is larger than this server takes."
    default_code = "too_large"


class UnknownCoding(APIException):
    """415: a body in a content coding (RFC 9110, 15.5.16)."""

    status_code = 415
    default_detail = "The body must be sent without a Content-Encoding."
    default_code = "unknown_coding"


class JSONParser(BaseParser):
    """`parse_json` of the body. Raises BodyTooLarge beyond MAX_BODY_BYTES.

    `at_most`: another limit, for a path that declares one (max_body_bytes of its Path)."""

    media_type = "application/json"
    at_most = 0

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        at_most = self.at_most or settings.MAX_BODY_BYTES
        body = stream.read(at_most + 1)
        if len(body) > at_most:
            raise BodyTooLarge(f"The body is larger than {at_most} bytes.")
        return parse_json(body)


def parse_json(body: bytes) -> Any:
    """UTF-8 JSON. Numbers with a point become Decimal, never float.

    Raises ParseError for malformed JSON, NaN, Infinity, a key given twice with different values
    and more than DEEPEST objects and arrays in each other.
    """
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except RecursionError as error:
        raise ParseError(TOO_DEEP) from error
    except ValueError as error:
        raise ParseError(f"The body is not valid JSON: {_in_our_words(error)}.") from error
    if body.count(b"[") + body.count(b"{") > DEEPEST and _deeper_than(DEEPEST, value):
        raise ParseError(TOO_DEEP)
    return value


def _deeper_than(levels: int, value: Any) -> bool:
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(levels):
        if not level:
            return False
        level = [
            part
            for each in level
            for part in (each.values() if type(each) is dict else each)
            if isinstance(part, _CONTAINERS)
        ]
    return bool(level)


class _NotTaken(ValueError):
    """JSON that this API refuses; the text is the reason."""


def _in_our_words(error: ValueError) -> str:
    """The reason without Python's own words: a client does not care about its codec and its
    limit of digits."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    if isinstance(error, json.JSONDecodeError) and error.doc.startswith("\ufeff"):
        return "it begins with a byte order mark"
    if isinstance(error, json.JSONDecodeError | _NotTaken):
        return str(error)
    return "an integer in it has too many digits"


def _refuse_constant(name: str) -> Any:
    raise _NotTaken(f"{name} is not a JSON number")


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _NotTaken(f"the exponent of {text[:40]} is out of range") from None


def _object_without_contradictions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and not _same(result[key], value):
            raise _NotTaken(f"the key {key[:40]!r} is given twice with different values")
        result[key] = value
    return result


# Made once; json.loads would make a decoder for each body.
_decoder = json.JSONDecoder(
    parse_float=_decimal,
    parse_constant=_refuse_constant,
    object_pairs_hook=_object_without_contradictions,
)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON values; Python alone would take true for 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


class OnlyJSON(DefaultContentNegotiation):
    """Whatever the client would rather have: this API speaks JSON and has no 406. What it sends
    must be JSON by name: DRF would take a body of `*/*` for one, a range that only Accept knows.
    And it must be sent as it is: a small body could be unpacked into a very large one."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        coding = request.META.get("HTTP_CONTENT_ENCODING", "")
        if coding.lower() not in ("", "identity"):
            raise UnknownCoding
        kind = str(request.content_type).partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


def to_json(data: Any) -> bytes:
    """Decimals as numbers, as they are; make them `json_number` and times `rfc3339` before."""
    return _encoder.encode(data)


class JSONRenderer(BaseRenderer):
    """`to_json`; nothing for None."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else to_json(data)
