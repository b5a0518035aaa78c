"""The three kinds of hot paths at work: from a request's parts to its answer, or None for Django."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import psycopg
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from eventsite.gateway.asgi_types import Scope
from eventsite.hot_paths.coalescer import Coalescer, Refused
from eventsite.hot_paths.session import FORGET_PLANS, KEEP_PLANS, PLAN_SECONDS, Session
from outbox.services import NotStored, OutcomeUnknown
from restapi.answers import Answer, json_answer
from restapi.errors import unavailable
from restapi.hot_path import AnyHotPath, HotConstant, HotPath, HotRead
from restapi.idempotency import Keyed, key_of_headers

__all__ = ["Endpoint", "endpoint_of"]

Command = TypeVar("Command")
Result = TypeVar("Result")


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
        self._store = _on_a_live_connection(path.perform)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"flush-{_name(self)}")
        self._coalescer = Coalescer(self._perform, name=_name(self))
        self._running: set[str] = set()  # ids of idempotency keys that wait or are being stored

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        try:
            command = self._path.read(body)
            key = key_of_headers(scope["headers"], endpoint=self._path.endpoint, body=body)
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            return None
        if key is None:
            return await _told(self._coalescer.submit, Keyed(command))
        if key.id in self._running:
            # It would wait in the queue for the first one. Django looks it up on a connection of
            # its own and tells at once: done, or still running.
            return None
        self._running.add(key.id)
        try:
            return await _told(self._coalescer.submit, Keyed(command, key))
        finally:
            self._running.discard(key.id)

    async def _perform(self, requests: Sequence[Keyed[Any]]) -> Sequence[Answer]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._store, requests)

    async def close(self) -> None:
        await self._coalescer.close()
        self._thread.shutdown(wait=False)


class _Read:
    method = "GET"
    takes_body = False

    def __init__(self, path: HotRead) -> None:
        self.route = path.route
        self._path = path
        self._session = Session()
        self._coalescer = Coalescer(self._find, name=_name(self), max_batch=READS_AT_MOST)

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        return None if body else await _told(self._coalescer.submit, wanted)

    async def _find(self, wanted: Sequence[str]) -> Sequence[Answer | None]:
        """A database that is away concerns all that ask: halving the batch would only ask again."""
        try:
            rows = await self._session.rows(*self._path.statement(wanted))
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
    submit: Callable[[Command], Awaitable[Answer | None]], command: Command
) -> Answer | None:
    """Its answer, a 503 if the database fails, None if it is refused."""
    try:
        return await submit(command)
    except (NotStored, OutcomeUnknown) as error:
        status, body, headers = unavailable(error)
        return json_answer(status, body, tuple(headers))
    except Refused:
        return None


def _on_a_live_connection(
    perform: Callable[[Sequence[Command]], Sequence[Result]],
) -> Callable[[Sequence[Command]], Sequence[Result]]:
    plans = _Plans()

    def on_a_live_connection(commands: Sequence[Command]) -> Sequence[Result]:
        close_old_connections()  # what Django does before a request
        plans.refresh()
        return perform(commands)

    return on_a_live_connection


class _Plans:
    """The plans of one thread's connection."""

    def __init__(self) -> None:
        self._connection: object = None
        self._made = 0.0

    def refresh(self) -> None:
        """Keep plans, forget those that are old. Raises NotStored."""
        now = time.monotonic()
        known = connection.connection is not None and connection.connection is self._connection
        if known and now - self._made < PLAN_SECONDS:
            return
        try:
            with connection.cursor() as cursor:
                cursor.execute(KEEP_PLANS)
                cursor.execute(FORGET_PLANS)
        except (OperationalError, InterfaceError) as error:
            raise NotStored(str(error)) from error
        self._connection, self._made = connection.connection, now
