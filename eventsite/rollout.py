"""Which processes wait for which while a new version is rolled out everywhere at once: bridges and beat
for workers, web for bridges. Nothing is lost in another order (docs/deployment.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from eventsite.roles import ROLES
from outbox import conf
from outbox.process.heartbeat import BEAT_SECONDS, SeenProcess

__all__ = ["ALIVE_SECONDS", "KINDS", "Version", "awaited_by"]

ALIVE_SECONDS = 3 * BEAT_SECONDS  # since its last heartbeat; after that a process counts as away
# What `manage.py await_version` takes -> the kind of process it becomes, as heartbeats name it.
KINDS = {name: name for name in ("web", "bridge", "beat", "relay")} | dict.fromkeys(ROLES, "worker")


@dataclass(frozen=True, slots=True)
class Version:
    """Of a process: the newest release that its code knows, and what it was made of."""

    release: str
    build: str

    @classmethod
    def ours(cls) -> Version:
        """Of this process."""
        return cls(conf.release(), conf.build())

    @property
    def name(self) -> str:
        """Release and build, without the word before them."""
        return self.release + (f", build {self.build}" if self.build else "")

    def __str__(self) -> str:
        return f"release {self.name}"


def awaited_by(role: str, seen: Iterable[SeenProcess], version: Version) -> list[str]:
    """The kinds of processes that must run this version before one of `role` starts, and do not
    yet; empty: it may start.

    Where one of its own kind and version lives already, the order was kept before: one more of
    them, or one that comes back on another machine, waits for nobody.
    """
    alive = [
        each.said
        for each in seen
        if each.age <= ALIVE_SECONDS and Version(each.said.release, each.said.build) == version
    ]
    kind = KINDS[role]
    if any(said.kind == kind for said in alive):
        return []
    match kind:
        case "web":
            return [] if any(said.kind == "bridge" for said in alive) else ["a bridge"]
        case "bridge":
            sent_to = {route.queue for route in conf.routes()}
        case "beat":
            schedule = settings.CELERY_BEAT_SCHEDULE
            sent_to = {entry["options"]["queue"] for entry in schedule.values()}
        case _:
            return []
    served = {queue for said in alive if said.kind == "worker" for queue in said.queues}
    return [f"a worker on queue {queue}" for queue in sorted(sent_to - served)]
