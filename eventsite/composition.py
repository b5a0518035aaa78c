"""Everything that the installed apps declare in their `wiring.py`, collected: settings, event map,
paths, worker roles. `manage.py wiring` prints the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any

from celery.schedules import schedule
from kombu import Exchange, Queue

from outbox.declaration import Backbone, Route
from outbox.topics import Topic
from outbox.watching import Alarm
from restapi.declaration import App, Path, Socket

__all__ = ["Wiring", "install", "settings_of"]


@dataclass(frozen=True)
class Wiring:
    """The declarations of these apps (names as in INSTALLED_APPS), in their order."""

    apps: tuple[str, ...]

    @cached_property
    def declared(self) -> dict[str, Backbone]:
        """App label -> its declaration, of the apps that have one."""
        found: dict[str, Backbone] = {}
        for app in self.apps:
            package = app.partition(".apps.")[0]
            spec = find_spec(package)  # does not run the package, as its settings are not there yet
            places = (spec and spec.submodule_search_locations) or ()
            if any((FilePath(place) / "wiring.py").is_file() for place in places):
                declaration = import_module(f"{package}.wiring").WIRING
                if not isinstance(declaration, Backbone):
                    raise TypeError(f"{package}/wiring.py: WIRING is not an App.")
                found[package.rpartition(".")[2]] = declaration
        return found

    @cached_property
    def web(self) -> tuple[App, ...]:
        """The declarations of those that serve HTTP."""
        return tuple(each for each in self.declared.values() if isinstance(each, App))

    @property
    def routes(self) -> tuple[Route, ...]:
        """The event map: one line a subscription."""
        return tuple(route for app, each in self.declared.items() for route in each.routes_of(app))

    @property
    def publishes(self) -> tuple[type[Any], ...]:
        """Event classes that the apps publish."""
        return tuple(event for each in self.declared.values() for event in each.publishes)

    @property
    def for_others(self) -> tuple[Topic, ...]:
        """Topics that only other programs read: their events are done when they are in Kafka."""
        return tuple(topic for each in self.declared.values() for topic in each.for_others)

    @property
    def letters(self) -> tuple[str, ...]:
        """Dotted paths of the sources of dead letters that apps keep themselves."""
        return tuple(source for each in self.declared.values() for source in each.letters)

    @property
    def hops(self) -> tuple[str, ...]:
        """Dotted paths of the functions that say how the apps' own hops stand."""
        return tuple(hops for each in self.declared.values() for hops in each.hops)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Every threshold, of the platform and of the apps."""
        return tuple(alarm for each in self.declared.values() for alarm in each.alarms)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Worker role -> the queues that it serves."""
        roles: dict[str, list[str]] = {}
        for each in self.declared.values():
            for queue in each.queues:
                roles.setdefault(queue.role, []).append(queue.name)
        return {role: tuple(queues) for role, queues in roles.items()}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path that an app serves by HTTP."""
        return tuple(path for each in self.web for path in each.paths)

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """Every WebSocket."""
        return tuple(socket for each in self.web for socket in each.sockets)

    @property
    def hot_paths(self) -> tuple[str, ...]:
        """Dotted paths of what is answered before Django."""
        return tuple(path for each in self.web for path in each.hot_paths)

    @property
    def status_logs(self) -> tuple[str, ...]:
        """Dotted paths of the logs that WebSockets follow."""
        return tuple(log for each in self.web for log in each.status_logs)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes that an API key can have."""
        return tuple(dict.fromkeys(scope for each in self.web for scope in each.scopes))


def install(settings: dict[str, Any], app: str, *, first: bool = False) -> None:
    """Add an app to a settings module (its `globals()`), with all that follows from its wiring.py.

    `first`: before the others, which then find what it has replaced.
    """
    others = settings["INSTALLED_APPS"]
    settings["INSTALLED_APPS"] = [app, *others] if first else [*others, app]
    settings.update(settings_of(settings["INSTALLED_APPS"]))


def settings_of(apps: Sequence[str]) -> dict[str, Any]:
    """The settings that follow from the installed apps."""
    wiring = Wiring(tuple(apps))
    queues = [queue for queues in wiring.roles.values() for queue in queues]
    return {
        "WIRING": wiring,
        "API_SCOPES": wiring.scopes,
        "OUTBOX_LETTER_SOURCES": wiring.letters,
        "CELERY_TASK_QUEUES": [
            Queue(queue, Exchange(queue), routing_key=queue) for queue in queues
        ],
        "CELERY_BEAT_SCHEDULE": {
            every.task: {
                "task": every.task,
                "schedule": schedule(every.seconds),
                "options": {"queue": every.queue},
            }
            for each in wiring.declared.values()
            for every in each.beat
        },
    }
