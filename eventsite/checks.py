"""System checks that compare the published event types with the release that runs beside this one in an upgrade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from eventsite import releases
from eventsite.releases import Release

__all__ = ["check_release", "release_errors"]


@register("outbox")
def check_release(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check that this code and the newest release can run side by side."""
    return list(release_errors(releases.newest(), releases.as_of_now("this code", settings.WIRING)))


def release_errors(last: Release, now: Release) -> Iterator[Error]:
    """Topics that the last release does not read are left out: no older handler could meet a new type."""
    for topic, published in now.publishes.items():
        unread = sorted(set(published) - set(last.reads.get(topic, published)))
        if unread:
            yield Error(
                f"{', '.join(unread)} of topic {topic!r} is published, and release {last.name} does "
                "not read it: during an upgrade, and after a rollback, its handlers would wait.",
                hint="Leave it out of `publishes` until a release that reads it is out "
                "(manage.py cut_release).",
                id="eventsite.E001",
            )
    for topic, published in last.publishes.items():
        unknown = sorted(set(published) - set(now.reads.get(topic, published)))
        if unknown:
            yield Error(
                f"Release {last.name} publishes {', '.join(unknown)} to topic {topic!r}, and this "
                "code does not know it: its handlers would wait.",
                hint="Stop publishing it first, and read it for one release more.",
                id="eventsite.E002",
            )
