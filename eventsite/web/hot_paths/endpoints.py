"""The kinds of hot paths: from the parts of a request to its answer, or None for Django."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.conf import settings

from eventsite.web.gateway.asgi_types import Scope
from eventsite.web.hot_paths.coalescer import STOPPING, BatchRefused, Coalescer
from eventsite.web.hot_paths.pool import SessionPool
from eventsite.web.redis_with_breaker import RedisWithBreaker
from outbox.database.unit_of_work import NotStored, OutcomeUnknown, TurnedAway
from restapi.answers import Answer, json_answer
from restapi.errors import unavailable
from restapi.hot_path import AnyHotPath, Asked, HotConstant, HotLookup, HotPath, HotRead
from restapi.hot_query import Parser
from restapi.idempotency import Keyed, key_of_headers

__all__ = ["Endpoint", "endpoint_of"]

# Bytes of a write: validating more would delay all other requests of the event loop.
BODY_AT_MOST = 65_536
# What is read is copied on the event loop, where everybody else waits meanwhile.
READS_AT_MOST = 64  # in a batch
ROWS_AT_MOST = 1_280  # in a batch, unless one read alone has more
REDIS_SECONDS = 0.1  # for an answer; PostgreSQL has it as well


class _Write:
    takes_body = True

    def __init__(self, path: HotPath[Any, Any], pool: SessionPool) -> None:
        self.method, self.route, self.parameters = path.method, path.route, path.parameters
        self._path = path
        self._turn = pool.turn()
        self._coalescer: Coalescer[Any, Answer | None] = Coalescer(
            self._perform, name=f"{self.method} {self.route}", turn=self._turn
        )
        self._running: set[str] = set()  # ids of idempotency keys that wait or are being stored

    async def answer(self, scope: Scope, asked: Asked) -> Answer | None:
        weight = len(asked.body)
        if weight > BODY_AT_MOST:
            return None
        try:
            command = self._path.read(asked)
            key = key_of_headers(
                scope["headers"],
                endpoint=f"{self.method} {scope['path']}",
                body=asked.body,
                query=scope["query_string"],
            )
        except Exception:  # noqa: BLE001  (every refusal has its canonical answer)
            return None
        if key is None:
            return await _submitted(self, Keyed(command), weight)
        if key.id in self._running:
            # It would wait in the queue for the first one. Django looks it up on a connection of
            # its own and answers at once: done, or still running.
            return None
        self._running.add(key.id)
        try:
            return await _submitted(self, Keyed(command, key), weight)
        finally:
            self._running.discard(key.id)

    async def _perform(self, requests: Sequence[Keyed[Any]]) -> Sequence[Answer | None]:
        return await self._turn.session.transact(self._path.steps(requests))

    async def close(self) -> None:
        await self._coalescer.close()


class _Read:
    method = "GET"
    takes_body = False

    def __init__(self, path: HotRead[Any] | HotLookup[Any], pool: SessionPool) -> None:
        self.route, self.parameters = path.route, path.parameters
        self._path = path
        self._turn = pool.turn()
        self._redis: RedisWithBreaker | None = None
        if isinstance(path, HotLookup):
            self._redis = RedisWithBreaker(
                getattr(settings, path.redis),
                patience=REDIS_SECONDS,
                logger="hot_paths",
                lost="hot_path_redis_lost",
                back="hot_path_redis_back",
            )
        self._coalescer: Coalescer[Any, Answer | None] = Coalescer(
            self._find,
            name=f"{self.method} {self.route}",
            turn=self._turn,
            max_batch=READS_AT_MOST,
            max_weight=ROWS_AT_MOST,
        )

    async def answer(self, scope: Scope, asked: Asked) -> Answer | None:
        if asked.body:
            return None
        try:
            question = self._path.read(asked)
            rows = self._path.rows(question)
        except Exception:  # noqa: BLE001  (as for a write)
            return None
        return await _submitted(self, question, rows)

    async def _find(self, questions: Sequence[Any]) -> Sequence[Answer | None]:
        steps = self._path.steps(questions)
        try:
            ask = next(steps)
            while True:
                if self._redis is not None and ask.commands:
                    received: Any = await self._redis.replies(ask.commands)
                else:
                    with _away_for_all():
                        received = await self._turn.session.read(ask.statements)
                ask = steps.send(received)
        except StopIteration as end:
            answers: Sequence[Answer | None] = end.value
            return answers

    async def close(self) -> None:
        await self._coalescer.close()
        if self._redis is not None:
            await self._redis.close()


@contextmanager
def _away_for_all() -> Iterator[None]:
    """A database that is unavailable concerns all that ask: halving the batch would only ask again."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise NotStored(str(error)) from error


class _Constant:
    method = "GET"
    takes_body = False
    parameters: Mapping[str, Parser] = {}

    def __init__(self, path: HotConstant) -> None:
        self.route = path.route
        self._answer = path.answer

    async def answer(self, scope: Scope, asked: Asked) -> Answer | None:
        return None if asked.body else self._answer

    async def close(self) -> None:
        pass


async def _submitted(endpoint: _Write | _Read, command: Any, weight: int = 0) -> Answer | None:
    """Its answer, a 503 if the database fails, None if it is refused."""
    waiting = None
    try:
        waiting = endpoint._coalescer.submit(command, weight)
        return await waiting.future
    except (NotStored, OutcomeUnknown) as error:
        return _unavailable(endpoint.method, error)
    except BatchRefused:
        return None
    except asyncio.CancelledError:  # by the server, which stops and waits no longer
        if waiting is None or waiting.begun:
            raise
        return _unavailable(endpoint.method, TurnedAway(STOPPING))


def _unavailable(method: str, error: NotStored | OutcomeUnknown) -> Answer:
    status, body, headers = unavailable(method, error)
    return json_answer(status, body, tuple(headers))


Endpoint = _Write | _Read | _Constant


def endpoint_of(path: AnyHotPath, *, reads: SessionPool, writes: SessionPool) -> Endpoint:
    """The path at work. Its `answer` is None where Django answers; its `close` finishes what has been
    accepted and takes no more. Reads have their own sessions, so a slow write holds up no read."""
    match path:
        case HotPath():
            return _Write(path, writes)
        case HotConstant():
            return _Constant(path)
        case _:
            return _Read(path, reads)
