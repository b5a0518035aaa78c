"""Steps for a session to run, and a proxy between it and its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from django.db import connection

from devtools.testing.weather import Proxy, proxy_to
from outbox.database.round_trips import Change, RoundTrip, Row, Statement, Steps

__all__ = ["asking", "proxied", "saying"]


def saying(
    statements: Sequence[Statement], on_commit: Callable[[], None] | None = None
) -> Steps[None]:
    """One round trip that asks nothing."""
    yield from ()
    return Change([], RoundTrip(statements, on_commit))


def asking(
    *trips: Sequence[Statement], on_commit: Callable[[], None] | None = None
) -> Steps[Sequence[Row]]:
    """The rows of all statements; nothing is written in the end."""
    rows: list[Sequence[Row]] = []
    for statements in trips:
        rows += yield RoundTrip(statements, on_commit)
    return Change(rows)


@contextmanager
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Sessions that are opened in the block reach the test database by this proxy."""
    host, port = connection.settings_dict["HOST"], int(connection.settings_dict["PORT"])
    with proxy_to(host, port) as proxy, monkeypatch.context() as patched:
        patched.setitem(connection.settings_dict, "PORT", str(proxy.port))
        yield proxy
