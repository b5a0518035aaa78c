"""Everything that the installed apps declare in their `wiring.py`, collected: settings, event map,
paths, worker roles. `manage.py wiring` prints the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any, Generic, TypeVar

from celery.schedules import schedule
from kombu import Exchange, Queue

from outbox.declaration import Backbone, Route
from outbox.topics import Topic
from outbox.watching import Alarm
from restapi.declaration import App, Path, Socket

__all__ = ["Wiring", "install", "settings_of"]

Thing = TypeVar("Thing")


class _OfAllApps(Generic[Thing]):
    """What the declarations have under this name, one behind the other."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, wiring: Wiring, owner: type) -> tuple[Thing, ...]:
        declared = wiring.declared.values()
        return tuple(thing for each in declared for thing in getattr(each, self._name, ()))


@dataclass(frozen=True)
class Wiring:
    """The declarations of these apps (names as in INSTALLED_APPS), in their order."""

    apps: tuple[str, ...]

    publishes = _OfAllApps[type[Any]]()  # event classes
    for_others = _OfAllApps[Topic]()  # what only other programs read is done when it is in Kafka
    letters = _OfAllApps[str]()  # dotted paths of the sources of dead letters that apps keep
    hops = _OfAllApps[str]()  # dotted paths of functions that say how the apps' own hops stand
    alarms = _OfAllApps[Alarm]()  # every threshold, of the platform and of the apps
    paths = _OfAllApps[Path]()
    sockets = _OfAllApps[Socket]()
    hot_paths = _OfAllApps[str]()  # dotted paths of what is answered before Django
    status_logs = _OfAllApps[str]()  # dotted paths of the logs that WebSockets follow

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
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Worker role -> the queues that it serves."""
        roles: dict[str, list[str]] = {}
        for each in self.declared.values():
            for queue in each.queues:
                roles.setdefault(queue.role, []).append(queue.name)
        return {role: tuple(queues) for role, queues in roles.items()}

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
