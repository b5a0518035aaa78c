"""/ws/ticks: all ticks, or those of one key."""

from __future__ import annotations

from collections.abc import Mapping

from devtools.testing.ticks.log import ALL
from restapi.status_consumer import StatusConsumer, refused_query

__all__ = ["Ticks"]


class Ticks(StatusConsumer):
    """Follows `?key=`, or everything."""

    log = "ticks"
    parameters = ("key",)

    def subject(self, given: Mapping[str, str]) -> str:
        key = given.get("key", ALL)
        if not key:
            raise refused_query("key", "May not be empty.")
        return key
