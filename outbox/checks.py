"""System checks of routes and topics: a wrong declaration stops the start and says what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from celery import current_app
from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.utils.module_loading import import_string
from kombu import compression

from outbox import conf
from outbox.conf import DRAIN_HANDLER
from outbox.declaration import Route
from outbox.process.task_queue import COMPRESSION

__all__ = ["check_event_map"]

STARTS = ("earliest", "now")


@register("outbox")
def check_event_map(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Find declarations that would fail at run time."""
    routes = conf.routes()
    return [
        *_name_errors(routes),
        *(error for route in routes for error in _route_errors(route)),
        *_topic_errors(routes),
        *_retention_errors(routes),
        *_compression_errors(),
    ]


def _name_errors(routes: Sequence[Route]) -> Iterator[Error]:
    for name, count in Counter(route.handler for route in routes).items():
        if count > 1:
            yield Error(
                f"Handler {name!r} is declared {count} times.",
                hint="Handler names are permanent keys of positions and receipts: give each its own.",
                id="outbox.E001",
            )
        if name == DRAIN_HANDLER:
            yield Error(
                f"Route {name!r} has the name of the drain's own dead letters.",
                hint="Give the handler another name.",
                id="outbox.E010",
            )


def _route_errors(route: Route) -> Iterator[Error]:
    where = f"Route {route.handler!r}"
    if route.task not in current_app.tasks:
        yield Error(
            f"{where} names the unknown task {route.task!r}.",
            hint="Use the name= of a @shared_task in the tasks.py of an installed app.",
            id="outbox.E002",
        )
    if route.queue not in current_app.amqp.queues:
        yield Error(
            f"{where} sends to the unknown queue {route.queue!r}.",
            hint="Declare it in the wiring.py of its app, with the role of the worker that serves it.",
            id="outbox.E003",
        )
    if not route.event:
        yield Error(
            f"{where} subscribes to no event.",
            hint="Name the classes of its events in event=.",
            id="outbox.E004",
        )
    for event in route.event:
        if event.topic != route.topic:
            yield Error(
                f"{where} reads topic {route.topic.name!r}, but {event.__name__} is published to "
                f"{event.topic.name!r}.",
                hint="A route reads one topic: add a second Route for the other.",
                id="outbox.E005",
            )
    if route.ordered and not route.topic.ordered_keys:
        yield Error(
            f"{where} is ordered, but writers of {route.topic.name!r} lock no row of the key.",
            hint="Set ordered=False, or lock the key's row before publish (guarantees.md#r1).",
            id="outbox.E007",
        )
    if route.since not in STARTS:
        yield Error(
            f"{where} starts at {route.since!r}.", hint=f"Use one of {STARTS}.", id="outbox.E008"
        )
    if not route.retries or min(route.retries) <= 0:
        yield Error(
            f"{where} retries after {route.retries!r} seconds.",
            hint="Give at least one positive number.",
            id="outbox.E009",
        )
    if route.reset and not callable(_imported(route.reset)):
        yield Error(
            f"{where} is reset by {route.reset!r}, which is not a function.",
            hint="Give the dotted path of one without arguments that empties the handler's tables.",
            id="outbox.E015",
        )


def _imported(path: str) -> object:
    try:
        return import_string(path)
    except ImportError:
        return None


def _topic_errors(routes: Sequence[Route]) -> Iterator[Error]:
    """A topic has handlers here, or only other programs read it."""
    for_others = {topic.name for topic in conf.topics_for_others()}
    for route in routes:
        if route.topic.name in for_others:
            yield Error(
                f"Topic {route.topic.name!r} has the handler {route.handler!r} and is declared as a topic that only other programs read.",
                hint="Take it out of for_others in the wiring.py of the app that publishes it.",
                id="outbox.E013",
            )


def _retention_errors(routes: Sequence[Route]) -> Iterator[Error]:
    """Retention of topics < of receipts < of the outbox (guarantees.md#r16)."""
    kept = conf.retention()
    for topic in {route.topic for route in routes}:
        if topic.retention_hours >= kept.receipts:
            yield Error(
                f"Topic {topic.name!r} is kept for {topic.retention_hours} h, receipts for "
                f"{kept.receipts} h: Kafka could deliver events again whose receipts are deleted.",
                hint="Raise RECEIPT_RETENTION_HOURS above the topic's retention_hours.",
                id="outbox.E011",
            )
    if kept.receipts >= kept.outbox:
        yield Error(
            f"Receipts are kept for {kept.receipts} h, the outbox for {kept.outbox} h: the audit "
            "would miss receipts of events that it still sees.",
            hint="Raise OUTBOX_RETENTION_HOURS above RECEIPT_RETENTION_HOURS.",
            id="outbox.E012",
        )


def _compression_errors() -> Iterator[Error]:
    """kombu silently leaves out a compression that it cannot import; a bridge would end at its first chunk."""
    if COMPRESSION not in compression.encoders():
        yield Error(
            f"This Python has no {COMPRESSION}, with which tasks are compressed.",
            hint="Install requirements.txt (backports-zstd); Python 3.14 and newer contain it, "
            "if they were built with libzstd.",
            id="outbox.E014",
        )
