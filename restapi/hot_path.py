"""How an app declares an endpoint that may be answered before Django, many requests at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from restapi.answers import Answer
from restapi.idempotency import Keyed, perform_once

__all__ = ["HotPath"]

Command = TypeVar("Command")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class HotPath(Generic[Command, Result]):
    """A write that the view and the hot path share piece by piece, so that there is one truth.

    method, path  the exact request line; a query string or a trailing slash is Django's
    route         label of the metrics and the log, as Django's resolver has it
    read          parsed JSON body -> command. Whatever it raises, Django answers the request
    write         commands -> results in the same order, in the open transaction and in pipeline
                  mode (`perform_once`)
    answer        (command, result) -> (status, JSON body)
    """

    method: str
    path: str
    route: str
    read: Callable[[Any], Command]
    write: Callable[[Sequence[Command]], Sequence[Result]]
    answer: Callable[[Command, Result], tuple[int, dict[str, Any]]]

    @property
    def endpoint(self) -> str:
        """What idempotency keys belong to, beside the caller."""
        return f"{self.method} {self.path}"

    def perform(self, requests: Sequence[Keyed[Command]]) -> list[Answer]:
        """Answers in the same order: commands all stored or none, each key once.

        Called on a thread of its own. Raises NotStored or OutcomeUnknown if the database fails,
        anything else only before COMMIT.
        """
        return perform_once(requests, write=self.write, answer=self.answer)
