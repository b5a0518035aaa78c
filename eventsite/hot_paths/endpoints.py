"""The three kinds of hot paths at work: from a request's parts to its answer, or None for Django."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connection

from eventsite.gateway.asgi_types import Scope
from eventsite.hot_paths.coalescer import Coalescer, Refused
from outbox.services import NotStored, OutcomeUnknown
from restapi.answers import Answer, json_answer
from restapi.errors import unavailable
from restapi.hot_path import AnyHotPath, HotConstant, HotPath, HotRead

__all__ = ["Endpoint", "endpoint_of"]

Command = TypeVar("Command")
Result = TypeVar("Result")

# All that this connection does is found by a key or inserted: one plan is right for any parameters,
# and that goes for the checks of foreign keys, which would be planned anew for every row. It must
# only never be a plan that reads a whole table because that was empty when the plan was made.
_PLAN_ONCE = """
    SELECT set_config('plan_cache_mode', 'force_generic_plan', false),
           set_config('enable_seqscan', 'off', false)
"""


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

    async def answer(self, scope: Scope, wanted: str, body: bytes) -> Answer | None:
        try:
            command = self._path.read(body)
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            return None
        try:
            result = await self._coalescer.submit(command)
        except (NotStored, OutcomeUnknown) as error:
            return _unavailable(error)
        except Refused:
            return None
        return json_answer(*self._path.answer(command, result))

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
    planned_for: object = None

    def on_a_live_connection(commands: Sequence[Command]) -> Sequence[Result]:
        nonlocal planned_for
        close_old_connections()  # what Django does around a request
        try:
            if connection.connection is None or connection.connection is not planned_for:
                _plan_once()
                planned_for = connection.connection
            return perform(commands)
        finally:
            close_old_connections()

    return on_a_live_connection


def _plan_once() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(_PLAN_ONCE)
    except (OperationalError, InterfaceError) as error:
        raise NotStored(str(error)) from error
