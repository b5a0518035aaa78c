"""What an app declares to the platform: its routes, the queues it works on, what beat starts for it.

Plain words, without settings and models: the settings themselves are made of these declarations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from outbox.topics import Topic
from outbox.watching import Alarm

__all__ = ["AppLetter", "Backbone", "Every", "LetterQuery", "LetterSource", "Route", "TaskQueue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the event map: which events of a topic which handler applies, and how.

    handler  permanent name: positions and receipts are kept under it
    event    event classes the handler subscribes to; other types of the topic pass it by
    topic    where they come from
    ordered  the effects of one key happen in the order of its commits
    task     name of the Celery task that applies a chunk of them; by default `<app>.<handler>`
    queue    Celery queue of that task; by default the app's name
    since    where a new handler starts: `earliest` reads what the topic still holds
    retries  seconds to wait before a failing event is tried again; after the last try it is dead
    reset    dotted path of a function without arguments that empties the handler's tables in the
             open transaction; without one the handler cannot be replayed
    """

    handler: str
    event: tuple[type[Any], ...]
    topic: Topic
    ordered: bool
    task: str = ""
    queue: str = ""
    since: str = "earliest"
    retries: tuple[float, ...] = (1.0, 2.0, 4.0)
    reset: str = ""

    @property
    def tries(self) -> int:
        """How often an event is tried in all before it is dead."""
        return len(self.retries) + 1

    @property
    def event_types(self) -> frozenset[str]:
        """Names of the subscribed event types, as the `ce_type` header has them."""
        return frozenset(event.type for event in self.event)


@dataclass(frozen=True, slots=True)
class TaskQueue:
    """A Celery queue, and the worker role that serves it: one of eventsite/roles.py."""

    name: str
    role: str = "effects"


@dataclass(frozen=True, slots=True)
class Every:
    """A task that beat starts every `seconds`, on `queue`."""

    seconds: float
    task: str
    queue: str = "upkeep"


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterQuery:
    """Which letters of a source: those with these ids, else those that meet every condition."""

    ids: Sequence[UUID] = ()
    topic: str = ""
    key: str | None = None
    error: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppLetter:
    """What a source knows of one of its letters; `details` are JSON values."""

    id: UUID
    topic: str
    key: str
    attempts: int
    error: str
    failed_at: datetime
    details: dict[str, Any]


class LetterSource(Protocol):
    """Dead letters that an app keeps in rows of its own: they are dead, nothing tries them again.

    `manage.py dead_letters` and the page of operators show them beside the others and act on them. Its
    name stands where the handler of a letter does; `permission` is what somebody needs who acts on them
    on the page, as Django writes it.
    """

    name: str
    permission: str

    def find(self, query: LetterQuery, limit: int) -> Sequence[AppLetter]:
        """Up to `limit` of them, the oldest first."""

    def replay(self, ids: Sequence[UUID], *, by: str) -> Sequence[UUID]:
        """Have these tried again; returns those that are. In a transaction of its own."""

    def discard(self, ids: Sequence[UUID], *, by: str) -> Sequence[UUID]:
        """Have these never tried again; returns those of which that is so now."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """What one app declares to the platform; `wiring.py` of the app holds it as WIRING.

    routes      its subscriptions
    publishes   event classes that it publishes; `publish` takes no other. A class is named here one
                release after a route or a handler's code reads it (docs/operations.md)
    for_others  topics that it publishes to and only other programs read
    queues      Celery queues that it brings
    beat        what beat starts for it
    letters     dotted paths of its LetterSources, for dead letters that are rows of its own
    hops        dotted paths of functions that say how its own hops stand: they return Hops of
                outbox/watching.py, and each query of theirs is bounded. Its handlers need none
    alarms      thresholds of the figures in these hops
    """

    routes: tuple[Route, ...] = ()
    publishes: tuple[type[Any], ...] = ()
    for_others: tuple[Topic, ...] = ()
    queues: tuple[TaskQueue, ...] = ()
    beat: tuple[Every, ...] = ()
    letters: tuple[str, ...] = ()
    hops: tuple[str, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    def routes_of(self, app: str) -> Iterator[Route]:
        """Its routes, with the app's name in what they leave open."""
        for route in self.routes:
            yield replace(
                route, task=route.task or f"{app}.{route.handler}", queue=route.queue or app
            )
