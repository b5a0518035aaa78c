"""Partitions that somebody has added to a topic, which a handler does not read yet.

Our own events keep to the partitions of the event map (`lane % partitions`, guarantees.md#r2), so more of
them change no order. What others write to a new one waits until an operator takes it in, with one
command that reads it from its beginning; the partitions that are known go on.
"""

from __future__ import annotations

from collections.abc import Iterable

from outbox.declaration import Route
from outbox.inbox import positions

__all__ = ["advice", "without_position"]


def advice(route: Route, partitions: Iterable[int]) -> str:
    """The command that gives the handler positions on these partitions."""
    added = any(number >= route.topic.partitions for number in partitions)
    return f"manage.py sync_routes{' --partitions' if added else ''}"


def without_position(route: Route, partitions: Iterable[int]) -> list[int]:
    """Those of the topic's partitions on which the handler has no position."""
    keys = [(route.topic.name, number) for number in partitions]
    known = positions.read_positions(route.handler, keys)
    return sorted(number for topic, number in keys if (topic, number) not in known)
