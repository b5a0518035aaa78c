"""Which event types each release reads and publishes: `releases.json`, one entry a release.

Processes of two releases run side by side in a rollout. So a type is published one release after the
code that reads it. `manage.py check` compares the code with the newest entry, `cut_release` adds
one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from eventsite.composition import Wiring

__all__ = ["FILE", "Release", "ReleaseExists", "Types", "add", "as_of_now", "newest", "releases"]

FILE = Path(__file__).with_name("releases.json")

Types = dict[str, list[str]]
"""Topic -> event types, sorted."""


class Release(msgspec.Struct, frozen=True):
    """Of the topics that have a handler: the types that the release knows, and those it publishes."""

    name: str
    reads: Types
    publishes: Types


class ReleaseExists(ValueError):
    """A release of this name stands in the file."""


def releases() -> list[Release]:
    """All releases, oldest first."""
    return msgspec.json.decode(FILE.read_bytes(), type=list[Release])


def newest() -> Release:
    """The last release that was cut."""
    return releases()[-1]


def as_of_now(name: str, wiring: Wiring) -> Release:
    """What this code reads and publishes."""
    reads = {route.topic.name: set[str]() for route in wiring.routes}
    publishes = {topic: set[str]() for topic in reads}
    for route in wiring.routes:
        reads[route.topic.name] |= route.event_types
    for event in wiring.publishes:
        if event.topic.name in reads:
            reads[event.topic.name].add(event.type)
            publishes[event.topic.name].add(event.type)
    return Release(name=name, reads=_sorted(reads), publishes=_sorted(publishes))


def _sorted(types: Mapping[str, set[str]]) -> Types:
    return {topic: sorted(types[topic]) for topic in sorted(types)}


def add(release: Release) -> None:
    """Add a release at the end of the file. Raises ReleaseExists."""
    known = releases()
    if release.name in {each.name for each in known}:
        raise ReleaseExists(
            f"{FILE.name} has a release {release.name!r} already: choose another name."
        )
    text = msgspec.json.format(msgspec.json.encode([*known, release]), indent=2)
    FILE.write_bytes(text + b"\n")
