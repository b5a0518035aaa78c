"""A whole answer as a value: the same bytes whether Django sends it or somebody before Django."""

from __future__ import annotations

from typing import Any

import msgspec
from django.http import HttpResponse

from restapi.json import JSONRenderer

__all__ = ["Answer", "json_answer", "to_response"]

Headers = tuple[tuple[bytes, bytes], ...]

_renderer = JSONRenderer()


class Answer(msgspec.Struct, frozen=True):
    """Status, JSON as it goes out, and headers beside those of every answer (names lower case)."""

    status: int
    body: bytes
    headers: Headers = ()


def json_answer(status: int, body: Any, headers: Headers = ()) -> Answer:
    """An answer by the renderer of all others."""
    return Answer(status, _renderer.render(body), headers)


def to_response(answer: Answer) -> HttpResponse:
    """The same for a Django view to return."""
    return HttpResponse(
        answer.body,
        status=answer.status,
        content_type=_renderer.media_type,
        headers={name.decode("latin-1").title(): value for name, value in answer.headers},
    )
