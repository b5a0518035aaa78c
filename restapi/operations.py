"""How an app declares its operations for the API's document: what every read and write has, said once.

A write may be refused for its body (400, 413, 415) and for its Idempotency-Key (400, 409, 422); what
every operation may answer is in restapi/openapi.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from restapi.openapi import errors, key_parameters

__all__ = ["ANY_OBJECT", "Body", "Documents", "Operations", "answer", "shape", "uuid_in_path"]

Method = TypeVar("Method", bound=Callable[..., Any])

_OF_A_BODY = (400, 413, 415)
_OF_A_KEY = (400, 409, 422)


class Documents(Protocol):
    """A decorator of a view's method."""

    def __call__(self, method: Method, /) -> Method: ...


class Body(NamedTuple):
    """What a request brings: its shape, and examples by name."""

    shape: Any
    examples: Mapping[str, Any]


# Nothing is asked for, but a body must be an object.
ANY_OBJECT = Body({"application/json": {"type": "object"}}, {"body": {}})


@dataclass(frozen=True, slots=True)
class Operations:
    """Decorators for the methods of views, under one heading of the document."""

    tag: str

    def read(
        self,
        operation_id: str,
        summary: str,
        description: str = "",
        *,
        answer: OpenApiResponse,
        parameters: Sequence[Any] = (),
        refuses: Collection[int] = (),
    ) -> Documents:
        """A GET, answered with 200. `refuses`: status codes beside those of every operation, and of query
        parameters where it has a serializer of them (400)."""
        asks = any(isinstance(each, type) for each in parameters)
        return extend_schema(
            operation_id=operation_id,
            tags=[self.tag],
            summary=summary,
            description=description,
            parameters=[*parameters],
            responses={200: answer, **errors(*refuses, *([400] if asks else []))},
        )

    def write(
        self,
        operation_id: str,
        summary: str,
        description: str = "",
        *,
        answers: Mapping[int, OpenApiResponse | None],
        body: Body | None = None,
        keyed: bool = True,
        parameters: Sequence[Any] = (),
        refuses: Collection[int] = (),
        conflict: OpenApiResponse | None = None,
    ) -> Documents:
        """A change. `keyed`: it takes an Idempotency-Key; `refuses`: status codes beside those of its
        body, its key and every operation; `conflict`: its own 409, where it has one."""
        codes = {*refuses, *(_OF_A_BODY if body else ()), *(_OF_A_KEY if keyed else ())}
        responses: dict[int, Any] = {**answers, **errors(*codes - {409 if conflict else 0})}
        if conflict:
            responses[409] = conflict
        request: dict[str, Any] = {}
        if body:
            request["request"] = body.shape
            request["examples"] = [
                OpenApiExample(name, value=value, request_only=True)
                for name, value in body.examples.items()
            ]
        return extend_schema(
            operation_id=operation_id,
            tags=[self.tag],
            summary=summary,
            description=description,
            parameters=[*parameters, *(key_parameters(*answers) if keyed else ())],
            responses=responses,
            **request,
        )


def shape(
    name: str, description: str, base: type[Any] = serializers.Serializer, /, **fields: Any
) -> Any:
    """A serializer class for the document alone: its component's name, what that says, and its fields
    beside those of `base`."""
    return type(name, (base,), {"__doc__": description, **fields})


def answer(
    shape: Any, value: Any, description: str = "", *, name: str = "answer"
) -> OpenApiResponse:
    """An answer's shape with an example of it, which has a name."""
    return OpenApiResponse(
        shape, description=description, examples=[OpenApiExample(name, value=value)]
    )


def uuid_in_path(name: str, kind: str, example: str) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        {"type": "string", "format": "uuid"},
        OpenApiParameter.PATH,
        description="An id that is not a UUID is a 404 too.",
        examples=[OpenApiExample(kind, value=example)],
    )
