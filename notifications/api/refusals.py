"""The answer to a request that cannot be accepted in the present state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rest_framework import status
from rest_framework.exceptions import APIException, ValidationError

from notifications.acceptance import KeyReused, KeyTaken, NotificationRefused, Unfit
from notifications.queries import NotificationState
from restapi.errors import Conflict
from restapi.idempotency import RETRY_AFTER_SECONDS
from restapi.json import parse_json

__all__ = ["StateConflict", "as_errors"]

KEY = "idempotency_key"


class KeyWasReused(ValidationError):
    """422, in the shape of all others."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY


class StillRunning(Conflict):
    """409: the same request is under way."""

    wait = RETRY_AFTER_SECONDS


class StateConflict(Conflict):
    """409 with the true status of what was asked to change."""

    def __init__(self, done: str, state: NotificationState) -> None:
        erased = " and was erased" if state.is_erased else ""
        super().__init__(
            f"A notification that is {state.status}{erased} cannot be {done}.", status=state.status
        )


@contextmanager
def as_errors(*, in_batch: bool = False) -> Iterator[None]:
    """Raises the API's error for what is refused in the block."""
    try:
        yield
    except NotificationRefused as refused:
        place = f"notifications.{refused.place}." if in_batch else ""
        raise _error(refused, place) from refused


def _error(refused: NotificationRefused, place: str) -> APIException:
    if isinstance(refused, Unfit):
        return ValidationError(
            {f"{place}{field}": message for field, message in refused.errors.items()}
        )
    if isinstance(refused, KeyReused):
        return KeyWasReused(
            {f"{place}{KEY}": ["Was used for another notification; send a new one."]}
        )
    if isinstance(refused, KeyTaken):
        stored: dict[str, Any] = parse_json(refused.words)
        return Conflict("This idempotency_key belongs to an existing notification.", **stored)
    return StillRunning(
        "A request with this idempotency_key is still running; try again in a moment."
    )
