"""How an app declares an endpoint that may be answered before Django, many requests at a time.

Three kinds; docs/hot-paths.md shows how to add one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from outbox.round_trips import Change, Row, Statement, Steps
from restapi.answers import Answer
from restapi.idempotency import Keyed, once, perform_once

__all__ = ["AnyHotPath", "HotConstant", "HotPath", "HotRead"]

A_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Command = TypeVar("Command")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class HotPath(Generic[Command, Result]):
    """A write that the view and the hot path share piece by piece, so that there is one truth.

    method, path  the exact request line; a query string or a trailing slash is Django's
    route         label of the metrics and the log, as Django's resolver has it
    read          the body's bytes -> command. Whatever it raises, Django answers the request
    write         commands -> results in the same order, and the statements that write them. It is
                  called on the event loop, reads nothing and changes nothing: what it has made may
                  be dropped, and made again for fewer
    answer        (command, result) -> (status, JSON body)
    """

    method: str
    path: str
    route: str
    read: Callable[[bytes], Command]
    write: Callable[[Sequence[Command]], Change[Result]]
    answer: Callable[[Command, Result], tuple[int, Any]]

    @property
    def endpoint(self) -> str:
        """What idempotency keys belong to, beside the caller."""
        return f"{self.method} {self.path}"

    def steps(self, requests: Sequence[Keyed[Command]]) -> Steps[Answer]:
        """Answers in the same order: commands all stored or none, each key once. For one
        transaction, which whoever raises anything rolls back."""
        return once(requests, write=self.write, answer=self.answer)

    def perform(self, requests: Sequence[Keyed[Command]]) -> Sequence[Answer]:
        """The same in a transaction on Django's connection. Raises NotStored or OutcomeUnknown."""
        return perform_once(requests, write=self.write, answer=self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRead:
    """A GET without a query string, whose answer the view makes by the same functions.

    path       exact, or with `{id}` as its last segment
    id         which ids are sure, as the URL's decoded path has them; others are Django's. As it
               is: a UUID as we write it, in lower case
    route      as in HotPath
    statement  what stood in place of `{id}`, of each waiting request ("" where the path has none)
               -> the one statement for all of them. It is sent after they have come: what is read
               is never older than the question
    answers    the same, and the statement's rows -> their answers in the same order; None: nothing
               is there, Django says it in its words

    Both are called on the event loop: they must not wait, and have PostgreSQL put into words what
    is long. A database error is a 503.
    """

    path: str
    route: str
    statement: Callable[[Sequence[str]], Statement]
    answers: Callable[[Sequence[str], Sequence[Row]], Sequence[Answer | None]]
    id: re.Pattern[str] = A_UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class HotConstant:
    """A GET that is always answered the same."""

    path: str
    route: str
    answer: Answer


AnyHotPath = HotPath[Any, Any] | HotRead | HotConstant
