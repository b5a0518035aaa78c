"""The consumer of a status log: an app says which log, and what a socket follows."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from channels.generic.websocket import AsyncWebsocketConsumer

from restapi.sockets import PUSH, SocketRefused, UnknownMessage
from restapi.status_log import HUB, Seat, StatusHub

__all__ = ["StatusConsumer", "refused_query"]

_NUMBER = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**63 - 1


class StatusConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Sends the changes of `log` that concern `subject`; takes no message.

    log         name of the StatusLog
    parameters  of the query, beside `since`; each is given once at most
    """

    log: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]] = ()

    _seat: Seat | None = None

    async def __call__(self, *scope_receive_send: Any) -> None:
        try:
            await super().__call__(*scope_receive_send)
        finally:  # whatever has ended it: a consumer that raises hears of no disconnect
            if self._seat is not None:
                self._seat.leave()

    def subject(self, given: Mapping[str, str]) -> Hashable:
        """What the socket follows. `given`: the parameters of its query. Raises SocketRefused."""
        raise NotImplementedError

    async def connect(self) -> None:
        given = _parameters(self.scope["query_string"], ("since", *self.parameters))
        since = _since(given.pop("since", None))
        hub: StatusHub = self.scope[HUB]
        self._seat = seat = await hub.enter(
            self.log,
            self.subject(given),
            since=since,
            send=self.base_send,
            push=self.scope["extensions"][PUSH],
            close=self.close,
        )
        await self.accept()
        seat.begin()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise UnknownMessage("This WebSocket accepts no messages.")


def refused_query(parameter: str, message: str) -> SocketRefused:
    """The 400 to raise about one parameter."""
    return SocketRefused(400, "The query is not valid.", [(parameter, message)])


def _parameters(query: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Those of these names; others are passed over, as in every query here."""
    given: dict[str, str] = {}
    try:
        pairs: list[tuple[Any, Any]] = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict"
        )
    except ValueError:
        raise refused_query("query", "Must be percent-encoded UTF-8.") from None
    for name, value in pairs:
        if name not in names:
            continue
        if name in given:
            raise refused_query(name, "Must be given once.")
        given[name] = value
    return given


def _since(text: str | None) -> int | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > _LARGEST:
        raise refused_query("since", f"Must be a whole number from 0 to {_LARGEST}.")
    return int(text)
