"""The gateway around consumers of the test's own: how they end, what they are kept from, spans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from channels.consumer import SyncConsumer

from apikeys.models import hash_of, make_key
from apikeys.queries import KeyState
from devtools.testing.receiver import spans_in_memory
from eventsite.web.gateway.access_log import AccessLog
from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.web.gateway.keyring import Keyring
from eventsite.web.gateway.layer import Parts, Rules
from eventsite.web.gateway.open_sockets import OpenSockets
from eventsite.web.gateway.sockets import SocketEndpoint
from eventsite.web.gateway.wiring import websockets_of
from restapi.declaration import Path, Socket
from restapi.sockets import PUSH

KEY = make_key()
PATH = Path(pattern="ws", read="orders:read")


class World:
    """One endpoint, its server (which may say that the client has gone), and the keys."""

    closed: asyncio.Event

    def __init__(
        self, consumer: Application, *, traced: bool = False, send_seconds: float = 10
    ) -> None:
        self.key = KeyState(
            1, hash_of(KEY) or b"", KEY[:11], "shop", frozenset({"orders:read"}), float("inf"), False, 1
        )  # fmt: skip
        self.sent: list[Message] = []
        self.frames: list[bytes] = []
        self.gone = False
        self.away = False
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.keyring = Keyring(self.read_keys)
        self.sockets = OpenSockets(self.keyring, at_most=0, send_seconds=send_seconds)
        parts = Parts(
            rules=Rules(
                keys_required=False,
                trusted_proxies=0,
                max_body_bytes=0,
                headers=[(b"x-frame-options", b"DENY")],
                traced=traced,
            ),
            keyring=self.keyring,
            limiter=None,
            access_log=AccessLog(service="web", level="INFO"),
        )
        self.endpoint = SocketEndpoint(parts, self.sockets, PATH, consumer, ("text",))

    def read_keys(self, revision: int, used: Collection[int]) -> list[KeyState]:
        if self.away:
            raise OSError("away")
        return [self.key] if self.key.revision > revision else []

    async def send(self, message: Message) -> None:
        if self.gone:
            raise OSError("the client has gone")
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self.incoming.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    def push(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return True

    async def run(self) -> None:
        scope: Scope = {
            "type": "websocket", "path": "/ws", "query_string": b"", "client": ("1.2.3.4", 5),
            "headers": [(b"host", b"x"), (b"x-api-key", KEY.encode())], "subprotocols": [],
            "extensions": {PUSH: self.push},
        }  # fmt: skip
        await self.endpoint(scope, self.incoming.get, self.send)
        await self.sockets.close()
        await self.keyring.close()

    @property
    def kinds(self) -> list[Any]:
        """What was sent: its type, and its status or code."""
        return [
            each["type"].rpartition("websocket.")[2]
            + f" {each.get('status', each.get('code', ''))}".rstrip()
            for each in self.sent
        ]


async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})


async def listens(scope: Scope, receive: Receive, send: Send) -> None:
    await accepts(scope, receive, send)
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Without an answer."""


async def sends_too_early(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.send", "text": "x"})


async def closes_as_no_server_may(scope: Scope, receive: Receive, send: Send) -> None:
    await accepts(scope, receive, send)
    await send({"type": "websocket.close", "code": 1005})


@pytest.mark.parametrize(
    ("consumer", "kinds"),
    [
        (accepts, ["accept", "close 1000"]),
        (returns, ["http.response.start 500", "http.response.body"]),
        (sends_too_early, ["http.response.start 500", "http.response.body"]),
    ],
)
def test_a_consumer_that_says_no_more(consumer: Application, kinds: list[str]) -> None:
    world = World(consumer)
    asyncio.run(world.run())
    assert world.kinds == kinds


def test_a_code_that_may_not_be_sent_is_our_fault() -> None:
    class Refusing(World):
        async def send(self, message: Message) -> None:
            if message.get("code") == 1005:
                raise ValueError("1005 is never sent")
            await super().send(message)

    world = Refusing(closes_as_no_server_may)
    asyncio.run(world.run())
    assert world.kinds == ["accept", "close 1011"]


def test_a_consumer_hears_that_the_client_has_gone_by_its_disconnect_alone() -> None:
    """What it sends meanwhile is dropped: an exception would keep its disconnect from it."""
    heard: list[int] = []

    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        await accepts(scope, receive, send)
        world.gone = True
        world.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await send({"type": "websocket.send", "text": "x"})
        heard.append((await receive())["code"])
        await send({"type": "websocket.send", "text": "x"})
        await send({"type": "websocket.close"})

    world = World(consumer)
    asyncio.run(world.run())
    assert heard == [1006]


@pytest.mark.parametrize("consumer", [listens, returns], ids=["open", "not yet"])
def test_cancelled_by_a_server_that_waits_no_longer(consumer: Application) -> None:
    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        if consumer is listens:
            await accepts(scope, receive, send)
        await asyncio.sleep(3600)

    world = World(waits)

    async def run() -> None:
        task = asyncio.create_task(world.run())
        await asyncio.sleep(0.1)
        task.cancel()
        await task

    asyncio.run(run())
    if consumer is listens:
        assert world.kinds == ["accept", "close 1001"]
    else:
        assert world.kinds[0] == "http.response.start 503"


@pytest.mark.parametrize("change", ["revoked", "scope", "expired"])
def test_a_key_that_may_no_longer(change: str) -> None:
    world = World(listens)

    async def run() -> None:
        task = asyncio.create_task(world.run())
        await asyncio.sleep(0.3)
        assert world.kinds == ["accept"]
        world.key = {
            "revoked": replace(world.key, revoked=True, revision=2),
            "scope": replace(world.key, scopes=frozenset({"orders:write"}), revision=2),
            "expired": replace(world.key, expires=1.0, revision=2),
        }[change]
        await asyncio.wait_for(task, 10)

    asyncio.run(run())
    assert world.kinds == ["accept", "close 1008"]


def test_a_key_that_is_revoked_before_the_consumer_accepts() -> None:
    async def takes_its_time(scope: Scope, receive: Receive, send: Send) -> None:
        world.key = replace(world.key, revoked=True, revision=2)
        await asyncio.sleep(2.0)  # until it has been noticed
        await listens(scope, receive, send)

    world = World(takes_its_time)
    asyncio.run(asyncio.wait_for(world.run(), 10))
    assert world.kinds == ["accept", "close 1008"]


def test_a_client_is_slow_though_more_and_more_is_sent() -> None:
    """By tasks of their own, each of which waits from later on."""

    class Deaf(World):
        async def send(self, message: Message) -> None:
            if message["type"] == "websocket.send":
                await self.closed.wait()
            await super().send(message)
            if message["type"] == "websocket.close":
                self.closed.set()
                self.gone = True

    async def sends(scope: Scope, receive: Receive, send: Send) -> None:
        await accepts(scope, receive, send)
        tasks: list[asyncio.Future[None]] = []
        while not world.closed.is_set():
            tasks.append(asyncio.ensure_future(send({"type": "websocket.send", "text": "x"})))
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)

    async def run() -> None:
        world.closed = asyncio.Event()
        await asyncio.wait_for(world.run(), 10)

    world = Deaf(sends, send_seconds=0.5)
    asyncio.run(run())
    assert world.kinds == ["accept", "close 1013"]


def test_a_push_is_for_an_open_socket_for_which_nothing_waits(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The sent message that a slow client is waiting for is not overtaken."""

    class Slow(World):
        async def send(self, message: Message) -> None:
            if message["type"] == "websocket.send":
                await self.closed.wait()
            await super().send(message)

    pushed: list[bool] = []

    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        world.closed = asyncio.Event()
        push = scope["extensions"][PUSH]
        pushed.append(push(b"too early"))
        await accepts(scope, receive, send)
        pushed.append(push(b"first"))
        waiting = asyncio.ensure_future(send({"type": "websocket.send", "text": "x"}))
        await asyncio.sleep(0)
        pushed.append(push(b"overtakes"))
        world.closed.set()
        await waiting
        pushed.append(push(b"second"))
        await send({"type": "websocket.close"})
        pushed.append(push(b"too late"))

    world = Slow(consumer)
    asyncio.run(world.run())
    assert pushed == [False, True, False, True, False]
    assert world.frames == [b"first", b"second"]
    world.endpoint.parts.access_log.flush()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    assert [line["sent"] for line in lines if line["event"] == "websocket_closed"] == [3]


def test_a_client_that_goes_before_the_consumer_accepts(capfd: pytest.CaptureFixture[str]) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        world.gone = True
        await accepts(scope, receive, send)
        await send({"type": "websocket.send", "text": "x"})

    world = World(late)
    asyncio.run(world.run())
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    assert [(line["event"], line["status"]) for line in lines] == [("request", 0)]


def test_a_key_lives_on_while_the_database_is_away() -> None:
    world = World(listens)

    async def run() -> None:
        task = asyncio.create_task(world.run())
        await asyncio.sleep(0.3)
        world.away = True
        await asyncio.sleep(2.0)  # more than the age at which keys are read again
        assert world.kinds == ["accept"]
        world.away = False
        world.key = replace(world.key, revoked=True, revision=2)
        await asyncio.wait_for(task, 10)

    asyncio.run(run())
    assert world.kinds == ["accept", "close 1008"]


def test_the_span_is_of_the_handshake(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spans = spans_in_memory(monkeypatch)

    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        await accepts(scope, receive, send)
        assert len(spans.get_finished_spans()) == 1  # before the socket ends
        raise ValueError("later")

    asyncio.run(World(consumer, traced=True).run())
    [span] = spans.get_finished_spans()
    assert span.name == "GET ws"
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 101
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    [start] = [line for line in lines if line["event"] == "websocket_opened"]
    assert span.context is not None
    assert start["span_id"] == f"{span.context.span_id:016x}"


class Synchronous(SyncConsumer):  # type: ignore[misc]
    """Takes a thread for each message."""


def test_a_synchronous_consumer_is_refused_at_the_start() -> None:
    world = World(accepts)
    socket = Socket(path=PATH, consumer=f"{__name__}.Synchronous")
    with pytest.raises(TypeError, match="not an asynchronous consumer"):
        websockets_of(world.endpoint.parts, world.sockets, [socket])
