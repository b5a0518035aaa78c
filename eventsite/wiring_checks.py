"""System checks of the apps' declarations: they find those that would fail silently at run time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from celery import current_app
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.utils.module_loading import import_string

from eventsite.composition import Wiring
from eventsite.roles import ROLES
from restapi.hot_path import HotConstant, HotLookup, HotPath, HotRead
from restapi.status_log import StatusLog

__all__ = ["check_wiring"]


@register("wiring")
def check_wiring(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the declarations; outbox/checks.py checks routes and topics."""
    wiring: Wiring = settings.WIRING
    return [
        *_role_errors(wiring),
        *_queue_errors(wiring),
        *_beat_errors(wiring),
        *_path_errors(wiring),
        *_hot_path_errors(wiring),
        *_socket_errors(wiring),
        *_status_log_errors(wiring),
    ]


def _role_errors(wiring: Wiring) -> Iterator[Error]:
    """Check the roles of queues: tasks of a queue whose role no worker has would wait for ever."""
    for role in wiring.roles.keys() - ROLES.keys():
        yield Error(
            f"Queues {', '.join(wiring.roles[role])} name the role {role!r}, which no worker has.",
            hint=f"Use one of {', '.join(ROLES)}, or add a role to eventsite/roles.py and a service "
            "to docker/compose.yaml.",
            id="eventsite.E011",
        )
    for role in ROLES.keys() - wiring.roles.keys():
        yield Error(
            f"Role {role!r} has no queue: its worker would have nothing to do.",
            hint="Take it out of eventsite/roles.py, or give it a TaskQueue in a wiring.py.",
            id="eventsite.E012",
        )


def _queue_errors(wiring: Wiring) -> Iterator[Error]:
    names = [queue.name for each in wiring.declared.values() for queue in each.queues]
    for name in _repeated(names):
        yield Error(
            f"Queue {name!r} is declared more than once.",
            hint="Declare it in one wiring.py; other apps may use its name.",
            id="eventsite.E003",
        )


def _beat_errors(wiring: Wiring) -> Iterator[Error]:
    for app, each in wiring.declared.items():
        for every in each.beat:
            where = f"Beat's entry for {every.task!r} in the wiring.py of {app!r}"
            if every.task not in current_app.tasks:
                yield Error(
                    f"{where} names an unknown task.",
                    hint="Use the name= of a @shared_task in the tasks.py of an installed app.",
                    id="eventsite.E004",
                )
            if every.queue not in current_app.amqp.queues:
                yield Error(
                    f"{where} names the unknown queue {every.queue!r}.",
                    hint="Declare it as a TaskQueue in a wiring.py.",
                    id="eventsite.E005",
                )
    tasks = [every.task for each in wiring.declared.values() for every in each.beat]
    for task in _repeated(tasks):
        yield Error(
            f"Beat has {task!r} more than once; only the last entry would count.",
            hint="Keep one of them.",
            id="eventsite.E006",
        )


def _path_errors(wiring: Wiring) -> Iterator[Error]:
    for paths in (wiring.paths, [socket.path for socket in wiring.sockets]):
        for pattern in _repeated([path.pattern for path in paths]):
            yield Error(
                f"Path {pattern!r} is declared more than once; only one of its scopes would count.",
                hint="Keep one of them.",
                id="eventsite.E007",
            )


def _hot_path_errors(wiring: Wiring) -> Iterator[Error]:
    patterns = {path.pattern for path in wiring.paths}
    for dotted in wiring.hot_paths:
        path, reason = _imported(dotted, "HotPath, HotRead, HotLookup or HotConstant")
        if not isinstance(path, HotPath | HotRead | HotLookup | HotConstant):
            yield Error(
                f"Hot path {dotted!r} cannot be used: {reason}.",
                hint="Give the dotted path of the declaration (restapi/hot_path.py).",
                id="eventsite.E008",
            )
        elif path.route not in patterns:
            yield Error(
                f"Hot path {dotted!r} has the route {path.route!r}, which is not a declared path.",
                hint="Set route= to the exact pattern of a Path in a wiring.py.",
                id="eventsite.E009",
            )


def _socket_errors(wiring: Wiring) -> Iterator[Error]:
    for socket in wiring.sockets:
        consumer, reason = _imported(socket.consumer, "consumer")
        if consumer is None:
            yield Error(
                f"WebSocket {socket.path.pattern!r} has no consumer: {reason}.",
                hint="Give the dotted path of a consumer class.",
                id="eventsite.E010",
            )


def _status_log_errors(wiring: Wiring) -> Iterator[Error]:
    found: list[StatusLog] = []
    for dotted in wiring.status_logs:
        log, reason = _imported(dotted, "StatusLog")
        if isinstance(log, StatusLog):
            found.append(log)
        else:
            yield Error(
                f"Status log {dotted!r} cannot be used: {reason}.",
                hint="Give the dotted path of the declaration (restapi/status_log.py).",
                id="eventsite.E013",
            )
    for name in _repeated([log.name for log in found]):
        yield Error(
            f"Status log {name!r} is declared more than once; only one would be read.",
            hint="Give each a name of its own.",
            id="eventsite.E014",
        )


def _imported(dotted: str, wanted: str) -> tuple[object, str]:
    """What it names, and why that cannot be used if it is not as wanted."""
    try:
        return import_string(dotted), f"{dotted} is no {wanted}"
    except ImportError as error:
        return None, str(error)


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
