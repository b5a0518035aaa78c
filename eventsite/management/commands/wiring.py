"""`manage.py wiring`: events, handlers, queues, beat tasks and paths on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string
from rich.console import Console
from rich.table import Table

from eventsite.composition import Wiring


class Command(BaseCommand):
    """Reads the declarations of the installed apps; asks no server."""

    help = "Print event > topic > handler > task > queue > role, beat's tasks, paths and sockets."

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console(
            file=cast(IO[str], self.stdout), width=None if self.stdout.isatty() else 160
        )
        wiring: Wiring = settings.WIRING
        roles = {queue: role for role, queues in wiring.roles.items() for queue in queues}
        for title, columns, rows in (
            (
                "Events",
                ("event", "topic", "handler", "task", "queue", "role"),
                _events(wiring, roles),
            ),
            ("Beat", ("every", "task", "queue", "role"), _beat(wiring, roles)),
            ("Paths", ("path", "read", "write", "before Django, or consumer"), _paths(wiring)),
        ):
            table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
            for row in rows:
                table.add_row(*row)
            console.print(table, end="\n\n")


def _events(wiring: Wiring, roles: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for route in wiring.routes:
        for event in sorted(route.event_types):
            role = roles[route.queue]
            yield event, route.topic.name, route.handler, route.task, route.queue, role
    heard = {(route.topic.name, type_) for route in wiring.routes for type_ in route.event_types}
    for published in wiring.publishes:
        if (published.topic.name, published.type) not in heard:
            yield published.type, published.topic.name, "other programs", "", "", ""


def _beat(wiring: Wiring, roles: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for declaration in wiring.declared.values():
        for every in declaration.beat:
            yield f"{every.seconds:g} s", every.task, every.queue, roles[every.queue]


def _paths(wiring: Wiring) -> Iterator[tuple[str, ...]]:
    hot: dict[str, list[str]] = {}
    for dotted in wiring.hot_paths:
        path = import_string(dotted)
        hot.setdefault(path.route, []).append(getattr(path, "method", "GET"))
    for path in wiring.paths:
        yield f"/{path.pattern}", path.read, path.write, " ".join(hot.get(path.pattern, ()))
    for socket in wiring.sockets:
        yield f"/{socket.path.pattern}", socket.path.read, "", socket.consumer
