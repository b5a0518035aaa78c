"""What the layer answers although Django never does, and what it leaves to Django."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import psycopg
import pytest
from django.test import override_settings
from django.urls import path
from rest_framework.request import Request
from rest_framework.views import APIView

from eventsite.asgi import HOT_PATHS
from eventsite.web.gateway.asgi_types import Message, Receive, Scope, Send
from eventsite.web.hot_paths import endpoints
from eventsite.web.hot_paths.coalescer import STOPPING, Coalescer, Waiting
from eventsite.web.hot_paths.layer import _UNSURE, HotPaths
from eventsite.web.hot_paths.session import Session
from outbox.database.round_trips import Row, Statement
from restapi.answers import json_answer
from restapi.hot_path import AnyHotPath, HotConstant, HotRead

NUMBER = "01890000-0000-7000-8000-{:012d}"
JSON = [(b"content-type", b"application/json")]
ECHO: HotRead[str] = HotRead(
    path="/orders/{id}",
    route="orders/<str:order_id>",
    statement=lambda ids: ("SELECT unnest(%s::text[])", (" ".join(ids),)),
    answers=lambda ids, _: [json_answer(200, id_) for id_ in ids],
)


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def django(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "django", "body": (await receive())["body"]})


async def ask(
    layer: HotPaths,
    path: str,
    *,
    query: bytes = b"",
    body: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> list[Message]:
    """What is sent in answer. With a body it is a POST."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    method = "POST" if body else "GET"
    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    await layer(scope | {"headers": [*headers]}, receive, send)
    return sent


async def get(
    path: str, query: bytes = b"", *, paths: Sequence[AnyHotPath] = HOT_PATHS
) -> list[Message]:
    """The same within a second, while Django hangs."""
    layer = HotPaths(hangs, paths, headers=[])
    try:
        return await asyncio.wait_for(ask(layer, path, query=query), 1.0)
    finally:
        await layer.close()


def test_health_is_told_while_django_hangs() -> None:
    start, body = asyncio.run(get("/health"))
    assert start["status"] == 200
    assert body["body"] == b'{"status":"alive"}'


def test_what_is_not_sure_waits_for_django() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(get("/health", b"strict=1"))


@pytest.mark.parametrize(
    ("wanted", "sure"),
    [("user-7", True), ("u" * 36, True), ("", False), ("user 7", False), ("user-7/feed", False)],
)
def test_ids_of_another_shape(monkeypatch: pytest.MonkeyPatch, wanted: str, sure: bool) -> None:
    async def no_rows(self: Session, statements: Sequence[Statement]) -> list[list[Row]]:
        return [[]]

    async def scenario() -> None:
        monkeypatch.setattr(Session, "read", no_rows)
        opaque = dataclasses.replace(ECHO, id=re.compile(r"[\w-]{1,64}"))
        first, *rest = await ask(HotPaths(django, [opaque], headers=[]), f"/orders/{wanted}")
        if sure:
            assert (first["status"], rest[0]["body"]) == (200, json.dumps(wanted).encode())
        else:
            assert first["type"] == "django"

    asyncio.run(scenario())


def test_a_path_that_django_does_not_know_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="no such path"):
        HotPaths(django, [dataclasses.replace(ECHO, path="/nothing/{id}")], headers=[])


@pytest.mark.parametrize("converter", ["uuid", "int", "slug", "str", "path"])
def test_each_of_djangos_converters_takes_an_id(
    monkeypatch: pytest.MonkeyPatch, converter: str
) -> None:
    class View(APIView):
        def get(self, request: Request, id: object) -> None:  # noqa: A002
            raise NotImplementedError

    urls = ModuleType("urls_of_this_test")
    urls.urlpatterns = [path(f"things/<{converter}:id>", View.as_view())]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "urls_of_this_test", urls)
    with override_settings(ROOT_URLCONF="urls_of_this_test"):
        HotPaths(django, [dataclasses.replace(ECHO, path="/things/{id}")], headers=[])


@pytest.mark.parametrize(
    "path",
    [
        HotConstant(path="/orders/{id}", route="", answer=json_answer(200, {})),
        dataclasses.replace(ECHO, path="/orders/x{id}"),
    ],
)
def test_what_would_lose_its_id_is_refused_at_the_start(path: AnyHotPath) -> None:
    with pytest.raises(ValueError, match="only one whole segment"):
        HotPaths(django, [path], headers=[])


def test_a_read_whose_answers_are_lost_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_rows(self: Session, statements: Sequence[Statement]) -> list[list[Row]]:
        return [[]]

    monkeypatch.setattr(Session, "read", no_rows)
    forgetful: HotRead[str] = HotRead(
        path="/orders",
        route="orders",
        statement=lambda _: ("SELECT 1", ()),
        answers=lambda *_: [],
    )
    start, body = asyncio.run(get("/orders", paths=[forgetful]))
    assert start["status"] == 503
    told = json.loads(body["body"])
    assert told == {"error": "The database does not answer; try again.", "details": []}


@pytest.mark.parametrize("name", sorted(_UNSURE))
def test_a_header_that_could_change_the_answer_is_djangos(name: bytes) -> None:
    async def scenario() -> None:
        layer = HotPaths(django, HOT_PATHS, headers=[])
        [told] = await ask(layer, "/health", headers=[(name, b"x")])
        assert told["type"] == "django"
        [told] = await ask(layer, "/orders", body=b"{}", headers=[*JSON, (name, b"x")])
        assert told == {"type": "django", "body": b"{}"}

    asyncio.run(scenario())


class Handed(Exception):
    """In place of the database."""


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the commands that are handed in; none is performed."""
    found: list[int] = []

    def submit(self: Any, command: object, weight: int = 0) -> Waiting[Any, Any]:
        found.append(weight)
        raise Handed

    monkeypatch.setattr(Coalescer, "submit", submit)
    return found


@pytest.mark.parametrize("key", [[], [(b"idempotency-key", b"k")]])
@pytest.mark.parametrize("spaces", [0, endpoints.BODY_AT_MOST - 31])
def test_a_body_weighs_what_it_is_long(
    weights: list[int], key: list[tuple[bytes, bytes]], spaces: int
) -> None:
    async def scenario() -> None:
        layer = HotPaths(django, HOT_PATHS, headers=[])
        body = b'{"user_id":"u1",' + b" " * spaces + b'"amount":42.50}'
        with pytest.raises(Handed):
            await ask(layer, "/orders", body=body, headers=[*JSON, *key])
        assert weights == [len(body)]

    asyncio.run(scenario())


def test_a_long_body_is_djangos(weights: list[int]) -> None:
    """Its validation would hold up all others."""

    async def scenario() -> None:
        layer = HotPaths(django, HOT_PATHS, headers=[])
        body = b'{"user_id":"u1","amount":1}' + b" " * endpoints.BODY_AT_MOST
        [told] = await ask(layer, "/orders", body=body, headers=JSON)
        assert told == {"type": "django", "body": body}
        assert weights == []

    asyncio.run(scenario())


class Held:
    """In place of a session's `read`: writes down what it is asked, waits for `gate`, then fails or
    finds nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.gate = asyncio.Event()
        self.asked: list[list[str]] = []
        monkeypatch.setattr(Session, "read", lambda _, statements: self._read(statements[0], error))

    async def _read(self, statement: Statement, error: Exception | None) -> list[list[Row]]:
        self.asked.append(str(statement[1][0]).split())
        await self.gate.wait()
        if error is not None:
            raise error
        return [[]]

    async def ask(self, layer: HotPaths, count: int) -> list[asyncio.Task[list[Message]]]:
        """One thing, then as many as `count` while that is looked up."""
        tasks = []
        for number in range(count + 1):
            tasks.append(asyncio.create_task(ask(layer, f"/orders/{NUMBER.format(number)}")))
            if number == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        return tasks


def test_so_many_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        held = Held(monkeypatch)
        layer = HotPaths(hangs, [ECHO], headers=[])
        tasks = await held.ask(layer, 2 * endpoints.READS_AT_MOST + 1)
        held.gate.set()
        assert {start["status"] for start, _ in await asyncio.gather(*tasks)} == {200}
        at_most = endpoints.READS_AT_MOST
        assert [len(ids) for ids in held.asked] == [1, at_most, at_most, 1]

    asyncio.run(scenario())


def test_so_many_rows_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long page takes the place of many."""

    async def scenario() -> None:
        held = Held(monkeypatch)
        rows = endpoints.ROWS_AT_MOST // 4
        layer = HotPaths(hangs, [dataclasses.replace(ECHO, rows=lambda _: rows)], headers=[])
        tasks = await held.ask(layer, 9)
        held.gate.set()
        assert {start["status"] for start, _ in await asyncio.gather(*tasks)} == {200}
        assert [len(ids) for ids in held.asked] == [1, 4, 4, 1]

    asyncio.run(scenario())


def test_a_database_that_is_away_is_asked_once_for_all_that_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        held = Held(monkeypatch, psycopg.OperationalError("away"))
        layer = HotPaths(hangs, [ECHO], headers=[])
        tasks = await held.ask(layer, 8)
        held.gate.set()
        assert {start["status"] for start, _ in await asyncio.gather(*tasks)} == {503}
        assert [len(ids) for ids in held.asked] == [1, 8]

    asyncio.run(scenario())


def test_more_than_the_queue_takes_are_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        held = Held(monkeypatch)
        monkeypatch.setattr(endpoints, "Coalescer", partial(Coalescer, max_waiting=2))
        layer = HotPaths(hangs, [ECHO], headers=[])
        tasks = await held.ask(layer, 5)
        held.gate.set()
        answers = [
            (start, json.loads(told["body"])) for start, told in await asyncio.gather(*tasks)
        ]
        assert [start["status"] for start, _ in answers] == [200, 200, 200, 503, 503, 503]
        start, told = answers[-1]
        assert (b"retry-after", b"2") in start["headers"]
        assert told == {"error": "Too many requests are waiting; try again.", "details": []}

    asyncio.run(scenario())


def test_whom_the_server_stops_waiting_for_is_told_what_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It cancels what has no answer in time: who was only queued has lost nothing."""

    async def scenario() -> None:
        held = Held(monkeypatch)
        layer = HotPaths(hangs, [ECHO], headers=[])
        under_way, queued = await held.ask(layer, 1)
        under_way.cancel()
        queued.cancel()
        start, body = await queued
        assert start["status"] == 503
        told = json.loads(body["body"])
        assert told == {"error": f"{STOPPING}; try again.", "details": []}
        with pytest.raises(asyncio.CancelledError):
            await under_way

    asyncio.run(scenario())


def test_close_answers_what_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        held = Held(monkeypatch)
        layer = HotPaths(hangs, [ECHO], headers=[])
        tasks = await held.ask(layer, 3)
        asyncio.get_running_loop().call_later(0.05, held.gate.set)
        await layer.close()
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)
        start, body = await ask(layer, f"/orders/{NUMBER.format(9)}")
        told = json.loads(body["body"])
        assert (start["status"], told["error"]) == (503, f"{STOPPING}; try again.")

    asyncio.run(scenario())
