"""The three kinds of hot paths at work: from a request's parts to its answer, or None for Django."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connection

from eventsite.gateway.asgi_types import Scope
from eventsite.hot_paths.coalescer import Coalescer, Refused
from outbox.services import NotStored, OutcomeUnknown
from restapi.answers import Answer, json_answer
from restapi.errors import unavailable
from restapi.hot_path import AnyHotPath, HotConstant, HotPath, HotRead
from restapi.idempotency import Keyed, key_of_headers

__all__ = ["Endpoint", "endpoint_of"]

Command = TypeVar("Command")
Result = TypeVar("Result")

# All that these connections do is inserted or found by a key: one plan is right for any parameters,
# also for the checks of foreign keys, which would otherwise be planned anew for every row. But a
# plan made while a table was empty may read all of it later, so none is kept for long.
_KEEP_PLANS = "SET plan_cache_mode = force_generic_plan"
_FORGET_PLANS = "DISCARD PLANS"
_PLAN_SECONDS = 1.0


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
        self._coalescer = Coalescer(_on_a_live_connection(path.perform), name=_name(self))
        self._running: set[str] = set()  # ids of idempotency keys that wait or are being stored

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        try:
            command = self._path.read(body)
            key = key_of_headers(scope["headers"], endpoint=self._path.endpoint, body=body)
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            return None
        if key is None:
            return await self._stored(Keyed(command))
        if key.id in self._running:
            # It would wait in the queue for the first one. Django looks it up on a connection of
            # its own and tells at once: done, or still running.
            return None
        self._running.add(key.id)
        try:
            return await self._stored(Keyed(command, key))
        finally:
            self._running.discard(key.id)

    async def _stored(self, request: Keyed[Any]) -> Answer | None:
        try:
            return await self._coalescer.submit(request)
        except (NotStored, OutcomeUnknown) as error:
            return _unavailable(error)
        except Refused:
            return None

    async def close(self) -> None:
        await self._coalescer.close()


class _Read:
    method = "GET"
    takes_body = False

    def __init__(self, path: HotRead) -> None:
        self.route = path.route
        find = _on_a_live_connection(_failing_like_a_write(path.find))
        self._coalescer = Coalescer(find, name=_name(self))

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        if body:
            return None
        try:
            return await self._coalescer.submit(wanted)
        except NotStored as error:
            return _unavailable(error)
        except Refused:
            return None

    async def close(self) -> None:
        await self._coalescer.close()


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


def _unavailable(error: NotStored | OutcomeUnknown) -> Answer:
    status, body, headers = unavailable(error)
    return json_answer(status, body, tuple(headers))


def _failing_like_a_write(
    find: Callable[[Sequence[Command]], Sequence[Result]],
) -> Callable[[Sequence[Command]], Sequence[Result]]:
    """A database that is away concerns all that ask: halving the batch would only ask it again."""

    def perform(commands: Sequence[Command]) -> Sequence[Result]:
        try:
            return find(commands)
        except (OperationalError, InterfaceError) as error:
            raise NotStored(str(error)) from error

    return perform


def _on_a_live_connection(
    perform: Callable[[Sequence[Command]], Sequence[Result]],
) -> Callable[[Sequence[Command]], Sequence[Result]]:
    plans = _Plans()

    def on_a_live_connection(commands: Sequence[Command]) -> Sequence[Result]:
        close_old_connections()  # what Django does around a request
        try:
            plans.refresh()
            return perform(commands)
        finally:
            close_old_connections()

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
        if known and now - self._made < _PLAN_SECONDS:
            return
        try:
            with connection.cursor() as cursor:
                cursor.execute(_KEEP_PLANS)
                cursor.execute(_FORGET_PLANS)
        except (OperationalError, InterfaceError) as error:
            raise NotStored(str(error)) from error
        self._connection, self._made = connection.connection, now
