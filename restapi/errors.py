"""One shape for every error: {"error": "<one sentence>", "details": [{"field", "message"}]}."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, cast
from uuid import UUID

import structlog
from django.core.exceptions import SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from drf_standardized_errors.formatter import ExceptionFormatter
from drf_standardized_errors.handler import ExceptionHandler
from drf_standardized_errors.types import ErrorResponse, ExceptionHandlerContext
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound, ParseError
from rest_framework.response import Response
from rest_framework.settings import api_settings

from outbox.database.unit_of_work import OutcomeUnknown, TurnedAway
from outbox.tracing import record_error
from restapi.answers import json_answer, to_response

__all__ = [
    "READS",
    "RETRY_AFTER_SECONDS",
    "Conflict",
    "ErrorFormatter",
    "bad_request",
    "exception_handler",
    "id_in_path",
    "not_found",
    "reads_only",
    "server_error",
    "turned_away_body",
    "unavailable",
]

RETRY_AFTER_SECONDS = 2
READS = ("GET", "HEAD", "OPTIONS")
SUSPICIOUS = "The request is malformed or has too many parameters."
OUTCOMES = {
    "not_stored": "The database is unavailable; nothing was stored, try again.",
    "unknown": "It is unknown whether the change was stored; check before you try again.",
}
READ_FAILED = "The database does not answer; try again."  # a read stores nothing, whatever happens

log = structlog.get_logger("restapi")


class Conflict(APIException):
    """409 with fields of its own beside the error."""

    status_code = status.HTTP_409_CONFLICT

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


def id_in_path(text: str, kind: str) -> UUID:
    """The id of a path, of what this kind names in the error. Raises NotFound."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"There is no {kind} {text}.") from None


class ErrorFormatter(ExceptionFormatter):
    """Flattens the errors of nested bodies: a field is named by its path, items.0.price."""

    def format_error_response(self, error_response: ErrorResponse) -> dict[str, Any]:
        errors = error_response.errors
        named = [(_path(error.attr), str(error.detail)) for error in errors]
        fields = [{"field": path, "message": message} for path, message in named if path]
        general = [message for path, message in named if not path]
        body: dict[str, Any] = {
            "error": general[0] if general else _summary(fields),
            "details": fields,
        }
        return body | getattr(self.exc, "fields", {})


def _path(attr: str | None) -> str:
    """What is wrong as a whole has the path of the thing itself, the body as a whole none."""
    whole = api_settings.NON_FIELD_ERRORS_KEY
    return "" if attr in (None, whole) else attr.removesuffix(f".{whole}")


def _summary(fields: list[dict[str, Any]]) -> str:
    names = ", ".join(dict.fromkeys(str(field["field"]) for field in fields[:5]))
    return f"The request is not valid: see {names}{', …' if len(fields) > 5 else ''}."


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponseBase | None:
    """DRF's hook. A database that is unavailable is a 503 with the outcome of the change."""
    if isinstance(exc, OperationalError | InterfaceError):
        return _unavailable(context["request"].method, exc)
    if isinstance(exc, Http404):
        exc = NotFound("There is no such resource.")
    if isinstance(exc, SuspiciousOperation):  # a query string of more than 1,000 parameters
        exc = ParseError(SUSPICIOUS)
    if not isinstance(exc, APIException):
        log.exception("unhandled_error")
        record_error(exc)
        return Response({"error": "Internal error.", "details": []}, status=500)
    return ExceptionHandler(exc, cast(ExceptionHandlerContext, context)).run()


def unavailable(
    method: str, error: OperationalError | InterfaceError
) -> tuple[int, dict[str, Any], list[tuple[bytes, bytes]]]:
    """Status, body and headers of the 503 for a database that is unavailable, or a process that
    has no room, and a log line. Only a write has an outcome."""
    outcome = None if method in READS else getattr(error, "outcome", "not_stored")
    turned_away = isinstance(error, TurnedAway)
    event = "turned_away" if turned_away else "database_unavailable"
    log.warning(event, outcome=outcome, error=str(error))
    record_error(error)
    if turned_away:
        body = turned_away_body(str(error), outcome)
    else:
        body = _body(READ_FAILED if outcome is None else OUTCOMES[outcome], outcome)
    return 503, body, [(b"retry-after", str(RETRY_AFTER_SECONDS).encode())]


def turned_away_body(why: str, outcome: str | None) -> dict[str, Any]:
    """`why` begins the sentence; `outcome`: "not_stored", None of a read."""
    return _body(f"{why}; {'nothing was stored, ' if outcome else ''}try again.", outcome)


def _body(sentence: str, outcome: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"error": sentence, "details": []}
    return body if outcome is None else body | {"outcome": outcome}


def _unavailable(method: str, error: OperationalError | InterfaceError) -> HttpResponse:
    status_code, body, headers = unavailable(method, error)
    response = to_response(json_answer(status_code, body, tuple(headers)))
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would say it once more
    return response


def _plain(status_code: int, message: str) -> HttpResponse:
    return to_response(json_answer(status_code, {"error": message, "details": []}))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler400."""
    return _plain(400, SUSPICIOUS)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler404."""
    return _plain(404, f"There is nothing at {request.path}.")


def reads_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A page that is only read: any other method is the 405 of the API, before Django's own check
    of forms could answer with a page."""

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in READS:
            return view(request, *args, **kwargs)
        answer = _plain(405, f'Method "{request.method}" not allowed.')
        answer["Allow"] = ", ".join(READS)
        return answer

    return guarded


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, for all that no view of the API has answered: the admin, middleware. It
    is called where the error is handled."""
    error = sys.exception()
    if not isinstance(error, OperationalError | InterfaceError):
        return _plain(500, "Internal error.")
    if not hasattr(error, "outcome"):
        # Django's own views commit more than once, or statement by statement.
        error = OutcomeUnknown(str(error))
    return _unavailable(str(request.method), error)
