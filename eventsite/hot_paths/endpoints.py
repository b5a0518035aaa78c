"""The three kinds of hot paths at work: from a request's parts to its answer, or None for Django."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import psycopg

from eventsite.gateway.asgi_types import Scope
from eventsite.hot_paths.coalescer import STOPPING, Coalescer, Refused
from eventsite.hot_paths.session import Session
from outbox.services import NotStored, OutcomeUnknown, TurnedAway
from restapi.answers import Answer, json_answer
from restapi.errors import unavailable
from restapi.hot_path import AnyHotPath, HotConstant, HotPath, HotRead
from restapi.idempotency import Keyed, key_of_headers

__all__ = ["Endpoint", "endpoint_of"]

Command = TypeVar("Command")


# Of a write, in bytes: the validation of more than that would hold up everybody else on the event loop.
BODY_AT_MOST = 65_536
# What is read is copied on the event loop, where everybody else waits meanwhile.
READS_AT_MOST = 64  # in a batch


class Endpoint(Protocol):
    """What the layer needs of a path."""

    method: str
    route: str
    takes_body: bool

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        """`wanted`: what stands in place of {id}. None: Django answers."""

    async def close(self) -> None:
        """Finish what has been accepted, take no more."""


def endpoint_of(path: AnyHotPath) -> Endpoint:
    """The path at work."""
    match path:
        case HotPath():
            return _Write(path)
        case HotRead():
            return _Read(path)
        case HotConstant():
            return _Constant(path)


class _Write:
    takes_body = True

    def __init__(self, path: HotPath[Any, Any]) -> None:
        self.method, self.route = path.method, path.route
        self._path = path
        self._session = Session()
        self._coalescer: Coalescer[Any, Answer | None] = Coalescer(self._perform, name=_name(self))
        self._running: set[str] = set()  # ids of idempotency keys that wait or are being stored

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        if len(body) > BODY_AT_MOST:
            return None
        try:
            command = self._path.read(body)
            key = key_of_headers(scope["headers"], endpoint=self._path.endpoint, body=body)
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            return None
        if key is None:
            return await _told(self._coalescer, Keyed(command), len(body))
        if key.id in self._running:
            # It would wait in the queue for the first one. Django looks it up on a connection of
            # its own and tells at once: done, or still running.
            return None
        self._running.add(key.id)
        try:
            return await _told(self._coalescer, Keyed(command, key), len(body))
        finally:
            self._running.discard(key.id)

    async def _perform(self, requests: Sequence[Keyed[Any]]) -> Sequence[Answer]:
        return await self._session.transact(self._path.steps(requests))

    async def close(self) -> None:
        await self._coalescer.close()
        await self._session.close()


class _Read:
    method = "GET"
    takes_body = False

    def __init__(self, path: HotRead) -> None:
        self.route = path.route
        self._path = path
        self._session = Session()
        self._coalescer = Coalescer(self._find, name=_name(self), max_batch=READS_AT_MOST)

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        return None if body else await _told(self._coalescer, wanted)

    async def _find(self, wanted: Sequence[str]) -> Sequence[Answer | None]:
        """A database that is away concerns all that ask: halving the batch would only ask again."""
        try:
            rows = await self._session.rows(self._path.statement(wanted))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise NotStored(str(error)) from error
        return self._path.answers(wanted, rows)

    async def close(self) -> None:
        await self._coalescer.close()
        await self._session.close()


class _Constant:
    method = "GET"
    takes_body = False

    def __init__(self, path: HotConstant) -> None:
        self.route = path.route
        self._answer = path.answer

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        return None if body else self._answer

    async def close(self) -> None:
        pass


def _name(endpoint: _Write | _Read) -> str:
    return f"{endpoint.method} {endpoint.route}"


async def _told(
    coalescer: Coalescer[Command, Answer | None], command: Command, weight: int = 0
) -> Answer | None:
    """Its answer, a 503 if the database fails, None if it is refused."""
    waiting = None
    try:
        waiting = coalescer.submit(command, weight)
        return await waiting.future
    except (NotStored, OutcomeUnknown) as error:
        return _unavailable(error)
    except Refused:
        return None
    except asyncio.CancelledError:  # by the server, which stops and waits no longer
        if waiting is None or waiting.begun:
            raise
        return _unavailable(TurnedAway(STOPPING))


def _unavailable(error: NotStored | OutcomeUnknown) -> Answer:
    status, body, headers = unavailable(error)
    return json_answer(status, body, tuple(headers))
