"""What an app says of its status log, and what a WebSocket's consumer says to the hub that reads it.

A status log is a table of committed changes; eventsite/web/status_hub/README.md has the whole. Apps do
not import the hub: it stands in the ASGI scope, under HUB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outbox.database.round_trips import Row, Statement

__all__ = ["HUB", "Following", "Seat", "StatusHub", "StatusLog"]

HUB = "status_hub"  # its key in the ASGI scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How what a socket wants is known, where that is a question to the database.

    keys_of  subjects -> statement that gives rows (subject, key), for all of them at once
    changes  table with a row for each change of a subject's keys, written in the transaction of the
             change; it keeps rows for a minute at least
    subject  its column that names the subject
    xid      its column with the transaction (xid8, default pg_current_xact_id()), indexed
    where    condition that a row meets if it is such a change
    """

    keys_of: Callable[[Sequence[str]], Statement]
    changes: str
    subject: str
    xid: str = "xid"
    where: str = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusLog:
    """A table with `id` (bigint, drawn from a sequence), `seq` (bigint, null until it is numbered,
    unique), a time, and an index on id WHERE seq IS NULL. Who changes one thing twice has locked
    a row of it, so that ids follow its commits.

    name       in metrics, log lines and nudges
    table      of the database
    columns    what is read of a row, as SQL; handed to `keys` and `message` in this order
    keys       columns -> what the row is about: sockets that want one of these get it
    message    seq and columns -> what they get, a JSON object
    at         column with the time of the change, timestamptz
    through    query for the highest seq that the app needs no more, as SQL; "": it needs none. Up to it beat
               deletes what is older than STATUS_LOG_HOURS, from the lowest seq on and without a hole; the
               row with the highest seq stays
    following  None: the subject of a socket is the one key that it wants
    """

    name: str
    table: str
    columns: tuple[str, ...]
    keys: Callable[[Row], Sequence[Hashable]]
    message: Callable[[int, Row], Mapping[str, Any]]
    at: str = "at"
    through: str = ""
    following: Following | None = None


class Seat(Protocol):
    """One socket in the hub."""

    def begin(self) -> None:
        """The socket is accepted: send what comes first, then everything from there on."""

    def leave(self) -> None:
        """The socket has ended, or was never accepted. May be called twice."""


class StatusHub(Protocol):
    """What a consumer asks of the hub."""

    async def enter(
        self,
        log: str,
        subject: Hashable,
        *,
        since: int | None,
        send: Callable[[Mapping[str, Any]], Awaitable[None]],
        push: Callable[[bytes], bool],
        close: Callable[[int, str], Awaitable[None]],
    ) -> Seat:
        """A seat for a socket that is about to be accepted.

        subject  what it follows: of `Following`, or the key itself
        since    the last `seq` that its client has seen; None: from now on
        send     sends one ASGI message
        push     writes one frame at once, if it can (restapi/sockets.py)
        close    closes with a code and a reason

        Raises SocketRefused (503) if the log cannot be read.
        """
