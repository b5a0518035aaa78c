"""How an app declares an endpoint that may be answered before Django, many requests at a time.

Four kinds; docs/http.md shows how to add one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from django.http import HttpResponse

from outbox.database.round_trips import Change, Row, Statement, Steps
from restapi.answers import Answer
from restapi.hot_query import Parser
from restapi.idempotency import IdempotencyKey, Keyed, once, perform_once, respond_once
from restapi.lookup import Ask, LookupSteps

__all__ = [
    "ANY_UUID",
    "AnyHotPath",
    "Asked",
    "HotConstant",
    "HotLookup",
    "HotPath",
    "HotRead",
]

ANY_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # as we write them

Command = TypeVar("Command")
Question = TypeVar("Question")
Result = TypeVar("Result")


class Asked(msgspec.Struct, frozen=True):
    """The parts of a request that qualifies for a hot path.

    id     what stands in place of `{id}`, as the URL's decoded path has it; "" without one
    given  the declared query parameters that it has, parsed, in its order
    body   as it came; b"" for a read
    """

    id: str = ""
    given: Mapping[str, Any] = {}
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HotPath(Generic[Command, Result]):
    """A write whose parts the view and the hot path share, so that both give the same answers.

    method, path  POST, PUT, PATCH or DELETE and the exact path, or with `{id}` as one of its
                  segments; a trailing slash is Django's
    route         label of the metrics and the log, as Django's resolver has it
    id            which ids are sure; others are Django's. As it is: a UUID in lower case
    parameters    the query parameters that are sure, with a parser each; any other query is Django's
    read          what a request brings -> command. Whatever it raises, Django answers the request
    write         commands -> results in the same order, and the statements that write them; or
                  the round trips that find out what can be done, and then the same. A result that
                  is None: this command cannot be done as things are, nothing of it is written, and
                  Django says so in its words. It is called on the event loop and changes nothing
                  by itself: what it has made may be dropped, and made again for fewer
    answer        (command, result) -> (status, JSON body)
    """

    method: str
    path: str
    route: str
    read: Callable[[Asked], Command]
    write: Callable[[Sequence[Command]], Change[Result] | Steps[Result | None]]
    answer: Callable[[Command, Result], tuple[int, Any]]
    id: re.Pattern[str] = ANY_UUID
    parameters: Mapping[str, Parser] = field(default_factory=dict)

    def steps(self, requests: Sequence[Keyed[Command]]) -> Steps[Answer | None]:
        """Answers in the same order: commands all stored or none, each key once. For one
        transaction, which whoever raises anything rolls back. None: Django answers."""
        return once(requests, write=self.write, answer=self.answer)

    def perform(self, requests: Sequence[Keyed[Command]]) -> Sequence[Answer]:
        """The same in a transaction on Django's connection. Raises NotStored, OutcomeUnknown or,
        where one of them cannot be done as things are, NotDone: then nothing is stored."""
        return perform_once(requests, write=self.write, answer=self.answer)

    def respond(self, key: IdempotencyKey | None, read: Callable[[], Command]) -> HttpResponse:
        return respond_once(key, read, write=self.write, answer=self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRead(Generic[Question]):
    """A GET whose answer the view makes by the same functions.

    path, route, id, parameters
               as in HotPath
    read       what a request brings -> question. Whatever it raises, Django answers. As it is: the
               id
    statement  the questions of all that wait -> the one statement for all of them. It is sent after
               they have come: what is read is never older than the question. Its SQL is one of a
               few texts, because each is prepared and kept
    answers    the same, and the statement's rows -> their answers in the same order; None: nothing
               is there, Django says it in its words
    rows       how many rows a question may bring, where it may be many: a batch is bounded by them

    All are called on the event loop: they must not wait, and have PostgreSQL put into words what
    is long. A database error is a 503.
    """

    path: str
    route: str
    statement: Callable[[Sequence[Question]], Statement]
    answers: Callable[[Sequence[Question], Sequence[Row]], Sequence[Answer | None]]
    read: Callable[[Asked], Question] = attrgetter("id")
    rows: Callable[[Question], int] = lambda _: 1
    id: re.Pattern[str] = ANY_UUID
    parameters: Mapping[str, Parser] = field(default_factory=dict)

    def steps(self, questions: Sequence[Question]) -> LookupSteps[Sequence[Answer | None]]:
        """As those of HotLookup: one."""
        [rows] = yield Ask([self.statement(questions)])
        return self.answers(questions, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class HotLookup(Generic[Question]):
    """A GET in several steps, which a copy in Redis may answer. The view makes the same steps.

    path, route, read, rows, id, parameters
               as in HotRead
    steps      the questions of all that wait -> the steps of their answers, in the same order; None:
               Django says it, because nothing is there or because it would keep the others waiting
    redis      name of the setting with the URL of the Redis that its commands are for

    Called on the event loop, as those of HotRead. A Redis that does not answer is left alone for a
    while, and the steps are sent None.
    """

    path: str
    route: str
    steps: Callable[[Sequence[Question]], LookupSteps[Sequence[Answer | None]]]
    redis: str
    read: Callable[[Asked], Question] = attrgetter("id")
    rows: Callable[[Question], int] = lambda _: 1
    id: re.Pattern[str] = ANY_UUID
    parameters: Mapping[str, Parser] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HotConstant:
    """A GET that is always answered the same."""

    path: str
    route: str
    answer: Answer


AnyHotPath = HotPath[Any, Any] | HotRead[Any] | HotLookup[Any] | HotConstant
