"""Partitions that somebody has added to a topic, which a handler does not read yet.

Our own events keep to the partitions of the event map (`lane % partitions`, guarantees.md#r2), so more of
them change no order. What others write to a new one waits until an operator takes it in, with one
command that reads it from its beginning; the partitions that are known go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import structlog

from outbox.declaration import Route
from outbox.inbox import positions
from outbox.inbox.positions import Position
from outbox.topics import PartitionKey

__all__ = ["Unread", "advice", "without_position"]

log = structlog.get_logger("outbox.bridge")


def advice(route: Route, partitions: Iterable[int]) -> str:
    """The command that gives the handler positions on these partitions."""
    added = any(number >= route.topic.partitions for number in partitions)
    return f"manage.py sync_routes{' --partitions' if added else ''}"


def without_position(route: Route, partitions: Iterable[int]) -> list[int]:
    """Those of the topic's partitions on which the handler has no position."""
    keys = [(route.topic.name, number) for number in partitions]
    known = positions.read_positions(route.handler, keys)
    return sorted(number for topic, number in keys if (topic, number) not in known)


class Unread:
    """The partitions that one bridge holds and cannot read, because it knows no position."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self.keys: frozenset[PartitionKey] = frozenset()  # also read by the thread of /health

    def add(self, keys: Collection[PartitionKey]) -> None:
        """These were given to the bridge; says so, and what to do."""
        if not keys:
            return
        self.keys |= set(keys)
        numbers = sorted(number for _, number in keys)
        log.error(
            "partitions_unread",
            handler=self._route.handler,
            topic=self._route.topic.name,
            partitions=numbers,
            advice=advice(self._route, numbers),
        )

    def discard(self, keys: Iterable[PartitionKey]) -> None:
        """These are read from now on, or were taken away."""
        self.keys -= set(keys)

    def found(self) -> Mapping[PartitionKey, Position]:
        """Positions that were written meanwhile."""
        return positions.read_positions(self._route.handler, self.keys) if self.keys else {}
