"""The gateway around WebSockets: a real process, real sockets, the consumers of devtools.testing.sockets."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from django.conf import settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from apikeys import services
from apikeys.models import prefix_of
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.web import Web, web_process
from restapi.sockets import CloseCode

SETTINGS = "devtools.testing.sockets.settings"
NEVER = "ek_00000000_" + "0" * 64
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def strict_of_module(django_db_setup: None) -> Iterator[Web]:
    """A process that requires keys."""
    given = {
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "API_KEYS_REQUIRED": "1",
        "LOG_LEVEL": "INFO",
        "WEBSOCKETS_PER_CALLER": "3",
        "WEBSOCKET_SEND_SECONDS": "1",
        "WEBSOCKET_ORIGINS": "https://Elsewhere.example:8443",
    }
    with web_process(**given) as web:
        yield web


@pytest.fixture
def web(strict_of_module: Web, transactional_db: None) -> Web:
    return strict_of_module


def make(name: str = "shop", *scopes: str) -> services.NewKey:
    return services.create_key(
        name=name,
        scopes=scopes or ("orders:read",),
        expires_at=None,
        by="test",
        at=datetime.now(UTC),
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def opened(web: Web, path: str, key: str = "", **options: Any) -> ClientConnection:
    headers = options.pop("headers", bearer(key) if key else {})
    url = f"ws://127.0.0.1:{web.port}{path}"
    options |= {"proxy": None, "max_size": None, "open_timeout": PATIENCE}
    client: ClientConnection = connect(url, additional_headers=headers, **options)
    return client


def refused(web: Web, path: str, status: int, key: str = "", **options: Any) -> dict[str, Any]:
    """The JSON of a handshake that was refused with this status and the headers of every answer."""
    with pytest.raises(InvalidStatus) as caught, opened(web, path, key, **options):
        pass
    answer = caught.value.response
    assert answer.status_code == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["traceparent"].startswith("00-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert bool(answer.headers.get("retry-after")) == (status in (429, 503))
    body: dict[str, Any] = json.loads(answer.body or b"")
    assert body.keys() == {"error", "details"}
    return body


def code_of(client: ClientConnection) -> int:
    """The code with which it is closed; 1006 if it broke without one."""
    with suppress(ConnectionClosed):
        while True:
            client.recv(timeout=PATIENCE)
    return client.close_code or 0


def lines(web: Web, event: str, **wanted: Any) -> list[dict[str, Any]]:
    """Lines of the process's log."""
    found = [
        json.loads(line) for line in web.process.log.read_text().splitlines() if line[:1] == "{"
    ]
    return [
        line
        for line in found
        if line["event"] == event and all(line.get(key) == wanted[key] for key in wanted)
    ]


def metric(web: Web, name: str, **labels: str) -> float:
    given = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    start = f"{name}{{{given}}} "
    found = web.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(start)) for line in found if line.startswith(start))


# Opening


@pytest.mark.parametrize("way", ["Authorization", "X-API-Key", "subprotocol"])
def test_the_key_comes_by_header_or_as_a_browser_can_send_it(web: Web, way: str) -> None:
    key = make("shop-7").key
    ways: dict[str, dict[str, Any]] = {
        "Authorization": {"headers": bearer(key)},
        "X-API-Key": {"headers": {"X-API-Key": key}},
        "subprotocol": {"subprotocols": ["bearer", key], "origin": "https://shop.example"},
    }
    options = ways[way]
    with opened(web, "/ws/obey/a?x=1", **options) as client:
        told = json.loads(client.recv(timeout=PATIENCE))
        assert (told["name"], told["caller"]) == ("a", "shop-7")
        assert key not in json.dumps(told)
        assert told["subprotocols"] == []
        assert client.subprotocol == ("bearer" if way == "subprotocol" else None)
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "you said hello"
    assert key not in web.process.log.read_text()


def test_the_consumer_has_the_ids_that_are_answered(web: Web) -> None:
    with opened(web, "/ws/obey/a", headers=bearer(make().key) | {"X-Request-ID": "r-1"}) as client:
        assert json.loads(client.recv(timeout=PATIENCE))["correlation_id"] == "r-1"
        assert client.response is not None
        assert client.response.headers["x-request-id"] == "r-1"
        assert client.response.headers["traceparent"].startswith("00-")


def test_one_line_at_open_and_one_at_close(web: Web) -> None:
    name = "lines-of-this-one"
    headers = bearer(make("shop").key) | {"X-Request-ID": "r-2"}
    with opened(web, f"/ws/obey/{name}?secret=1", headers=headers) as client:
        client.recv(timeout=PATIENCE)
        client.send("one")
        client.recv(timeout=PATIENCE)
        assert settles(lambda: bool(lines(web, "websocket_opened", path=f"/ws/obey/{name}")))
        assert lines(web, "websocket_closed", path=f"/ws/obey/{name}") == []
    assert settles(lambda: bool(lines(web, "websocket_closed", path=f"/ws/obey/{name}")))
    [start] = lines(web, "websocket_opened", path=f"/ws/obey/{name}")
    [end] = lines(web, "websocket_closed", path=f"/ws/obey/{name}")
    for line in (start, end):
        assert (line["route"], line["caller"]) == ("ws/obey/<str:name>", "shop")
        assert line["correlation_id"] == "r-2"
        assert line["trace_id"] == start["trace_id"]
    assert (end["code"], end["sent"], end["received"]) == (1000, 2, 1)
    assert end["seconds"] > 0
    assert "code" not in start
    assert "secret=1" not in web.process.log.read_text()


def test_metrics_by_pattern(web: Web) -> None:
    path = "ws/obey/<str:name>"
    key = make().key

    def counted() -> list[float]:
        return [
            metric(web, "websockets_open", path=path),
            metric(web, "websockets_opened_total", path=path),
            metric(web, "websockets_closed_total", path=path, code="1000"),
            metric(web, "websockets_closed_total", path=path, code="other"),
            metric(web, "websocket_messages_total", path=path, direction="received"),
            metric(web, "websocket_messages_total", path=path, direction="sent"),
            metric(web, "http_requests_total", method="GET", path=path, status="403"),
        ]

    assert settles(lambda: counted()[0] == 0)  # those of the tests before
    before = counted()
    with opened(web, "/ws/obey/a", key) as client:
        client.recv(timeout=PATIENCE)
        assert counted()[0] == 1
    refused(web, "/ws/obey/close", 403, key)
    with opened(web, "/ws/obey/a", key) as client:
        client.send("close")
        assert code_of(client) == 4001
    assert settles(lambda: counted()[0] == 0)
    added = [after - was for after, was in zip(counted(), before, strict=True)]
    assert added == [0, 2, 1, 1, 1, 2, 1]


# Refused before it is open


def test_without_a_key_nothing_opens(web: Web) -> None:
    assert "Send an API key" in refused(web, "/ws/obey/a", 401)["error"]
    assert "Send an API key" in refused(web, "/ws/nothing", 401)["error"]
    assert "unknown, expired" in refused(web, "/ws/obey/a", 401, NEVER)["error"]
    offers: list[Any] = [["bearer"], ["bearer", NEVER]]
    for offered in offers:
        body = refused(web, "/ws/obey/a", 401, subprotocols=offered)
        assert "unknown, expired" in body["error"]


def test_keys_that_differ(web: Web) -> None:
    one, other = make("a").key, make("b").key
    offered: Any = ["bearer", other]
    assert "different keys" in refused(web, "/ws/obey/a", 401, one, subprotocols=offered)["error"]
    headers = {"X-API-Key": one}
    refused(web, "/ws/obey/a", 401, headers=headers, subprotocols=offered)


def test_a_key_in_the_address_is_refused_also_beside_a_good_one(web: Web) -> None:
    key = make().key
    for query in (f"?token={key}", f"?since=1&x={NEVER}"):
        body = refused(web, f"/ws/obey/a{query}", 400, key)
        assert body["details"][0]["field"] == "query"
    assert key not in web.process.log.read_text()


def test_a_scope_is_asked_for(web: Web) -> None:
    body = refused(web, "/ws/obey/a", 403, make("shop", "orders:write").key)
    assert "orders:read" in body["error"]


def test_a_path_that_nobody_declares(web: Web) -> None:
    for path in ("/ws/nothing", "/orders", "/ws/obey/", "/"):
        assert path in refused(web, path, 404, make(f"of-{len(path)}").key)["error"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://shop.example", True),
        ("http://SHOP.example:3000", True),
        ("https://elsewhere.example:8443", True),
        ("https://elsewhere.example", False),
        ("http://elsewhere.example:8443", False),
        ("https://shop.example.evil.example", False),
        ("https://evil.example", False),
        ("file://shop.example", False),
        ("null", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_origin(web: Web, origin: Any, allowed: bool) -> None:
    headers = bearer(make().key) | ({} if origin is None else {"Origin": origin})
    if allowed:
        with opened(web, "/ws/obey/a", headers=headers) as client:
            client.recv(timeout=PATIENCE)
    else:
        assert "origin" in refused(web, "/ws/obey/a", 403, headers=headers)["error"]


def test_what_a_consumer_refuses(web: Web) -> None:
    key = make().key
    body = refused(web, "/ws/obey/bad?since=x", 400, key)
    assert body["error"] == "The query is not valid."
    assert body["details"] == [{"field": "since", "message": "Is no number."}]
    refused(web, "/ws/obey/close", 403, key)
    refused(web, "/ws/obey/full", 503, key)
    assert refused(web, "/ws/obey/raise", 500, key)["error"] == "Internal error."
    assert "before it is open" in json.dumps(lines(web, "unhandled_error"))
    with opened(web, "/ws/obey/a", key) as client:
        client.recv(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Sec-WebSocket-Version: 13\r\n", b"400"),
        (b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"400"),
        (b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", b"400"),
    ],
)
def test_a_malformed_handshake_is_refused_in_json(web: Web, head: bytes, status: bytes) -> None:
    with web.socket() as raw:
        raw.sendall(
            b"GET /ws/obey/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + head
            + b"\r\n"
        )
        answer, _, body = raw.makefile("rb").read().partition(b"\r\n\r\n")
    assert answer.split()[1] == status, answer
    assert b"application/json" in answer
    assert json.loads(body).keys() == {"error", "details"}


def test_a_limit_of_open_sockets_for_each_caller(web: Web) -> None:
    """Three here; also when all come at once. A place that is left is free again."""
    one, other = make("one").key, make("other").key
    with ExitStack() as stack:
        mine = [stack.enter_context(opened(web, "/ws/obey/a", one)) for _ in range(3)]
        assert "limit is 3" in refused(web, "/ws/obey/a", 429, one)["error"]
        theirs = stack.enter_context(opened(web, "/ws/obey/a", other))
        assert json.loads(theirs.recv(timeout=PATIENCE))["caller"] == "other"
        mine[0].close()

        def opens() -> bool:
            with suppress(InvalidStatus):
                stack.enter_context(opened(web, "/ws/obey/a", one))
                return True
            return False

        assert settles(opens)
        refused(web, "/ws/obey/a", 429, one)


def test_a_handshake_counts_towards_the_rate() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL
    ) as client:  # a neighbour may have emptied the bucket
        for bucket in client.scan_iter("rate_limit:*"):
            client.delete(bucket)
    with web_process(DJANGO_SETTINGS_MODULE=SETTINGS, RATE_LIMIT="1/h burst 2") as web:
        for _ in range(2):
            with opened(web, "/ws/obey/a") as client:
                assert json.loads(client.recv(timeout=PATIENCE))["caller"] == "anonymous"
        assert "limit is 1/h" in refused(web, "/ws/obey/a", 429)["error"]


# Close codes


def test_1008_when_the_key_is_revoked(web: Web) -> None:
    """And nobody else's socket."""
    key, other = make("revoked"), make("stays")
    with opened(web, "/ws/obey/r", key.key) as mine, opened(web, "/ws/obey/s", other.key) as theirs:
        mine.recv(timeout=PATIENCE)
        theirs.recv(timeout=PATIENCE)
        services.revoke_key(prefix=prefix_of(key.key), by="test", at=datetime.now(UTC))
        assert code_of(mine) == CloseCode.KEY_REVOKED
        theirs.send("still here")
        assert theirs.recv(timeout=PATIENCE) == "you said still here"
    assert settles(lambda: bool(lines(web, "websocket_closed", path="/ws/obey/r")))
    assert lines(web, "websocket_closed", path="/ws/obey/r")[0]["code"] == 1008
    assert [line["code"] for line in lines(web, "consumer_heard", name="r")] == [1008]


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_1009_over_4_kb(web: Web, kind: str) -> None:
    key = make().key
    whole: str | bytes = "x" * 4096 if kind == "text" else b"x" * 4096
    with opened(web, "/ws/bytes", key) as client:
        client.send(whole)
        assert client.recv(timeout=PATIENCE) == whole
        with suppress(ConnectionClosed):  # it may be closed before the last fragment is sent
            client.send([whole[:4000], whole[4000:], whole[:1]])
        assert code_of(client) == CloseCode.TOO_BIG
    for length in (4097, 3_000_000):
        with opened(web, "/ws/bytes", key) as client:
            with suppress(ConnectionClosed):
                client.send("x" * length)
            assert code_of(client) == CloseCode.TOO_BIG


def test_1009_reaches_a_client_that_goes_on_sending(web: Web) -> None:
    """Bytes that come to a closed connection reset it, and what the client has not read is lost."""
    with deaf(web, "large", make().key) as raw:
        head = raw.recv(4096)
        while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
            head += raw.recv(4096)  # to the end of the consumer's first message
        raw.sendall(b"\x81\xff" + struct.pack("!Q", 3_000_000) + bytes(4))
        for _ in range(3):
            time.sleep(0.2)
            raw.sendall(bytes(1_000))
        frame = raw.recv(4)
    assert (frame[0], struct.unpack("!H", frame[2:])[0]) == (0x88, CloseCode.TOO_BIG)


def test_1009_for_fragments_without_end(web: Web) -> None:
    with opened(web, "/ws/bytes", make().key) as client:
        frames = [Frame(Opcode.TEXT, b"", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 2000]
        client.socket.sendall(b"".join(each.serialize(mask=True) for each in frames))
        assert code_of(client) == CloseCode.TOO_BIG


def test_1003_for_a_message_of_unknown_kind(web: Web) -> None:
    key = make().key
    for sent in (b"bytes", "unknown"):
        with opened(web, "/ws/obey/a", key) as client:
            client.recv(timeout=PATIENCE)
            client.send(sent)
            assert code_of(client) == CloseCode.UNKNOWN_KIND


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007),
        (b"\xc1\x81\x00\x00\x00\x00x", 1002),  # a reserved bit
        (Frame(Opcode.TEXT, b"x").serialize(mask=False), 1002),
        (b"\x83\x80abcd", 1002),  # an opcode that nobody knows
        (Frame(Opcode.CONT, b"x").serialize(mask=True), 1002),  # of no message
        (b"\x88\x81\x00\x00\x00\x00x", 1002),  # a close with half a code
    ],
    ids=["no UTF-8", "a reserved bit", "no mask", "unknown opcode", "no beginning", "half a code"],
)
def test_garbage_frames_close_and_are_no_error_of_ours(web: Web, garbage: bytes, code: int) -> None:
    before = web.process.log.read_text()
    with opened(web, "/ws/obey/garbage", make().key) as client:
        client.recv(timeout=PATIENCE)
        client.socket.sendall(garbage)
        assert code_of(client) == code
    assert settles(lambda: '"websocket_closed"' in web.process.log.read_text()[len(before) :])
    said = web.process.log.read_text()[len(before) :]
    assert "Traceback" not in said
    assert '"level":"error"' not in said.replace(" ", "")


def test_1011_when_the_consumer_fails(web: Web) -> None:
    with (
        opened(web, "/ws/obey/fails", make("a").key) as one,
        opened(web, "/ws/obey/a", make("b").key) as other,
    ):
        one.recv(timeout=PATIENCE)
        other.recv(timeout=PATIENCE)
        one.send("raise")
        assert code_of(one) == CloseCode.OUR_FAULT
        other.send("still here")
        assert other.recv(timeout=PATIENCE) == "you said still here"
    [line] = [
        each for each in lines(web, "unhandled_error") if "while it is open" in json.dumps(each)
    ]
    [start] = lines(web, "websocket_opened", path="/ws/obey/fails")
    assert line["correlation_id"] == start["correlation_id"]


@contextmanager
def deaf(web: Web, name: str, key: str = "") -> Iterator[socket.socket]:
    """An open socket whose client reads nothing from now on."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", web.port))
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        raw.sendall(
            f"GET /ws/obey/{name} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"{authorization}\r\n".encode()
        )
        assert raw.recv(12) == b"HTTP/1.1 101"
        yield raw


def test_1013_for_a_client_that_does_not_read(web: Web) -> None:
    """Others are answered meanwhile, and what the consumer had still to send is dropped."""
    with (
        deaf(web, "slow", make("slow").key) as raw,
        opened(web, "/ws/obey/q", make("q").key) as quick,
    ):
        quick.recv(timeout=PATIENCE)
        raw.sendall(Frame(Opcode.TEXT, b"flood").serialize(mask=True))
        heard = 0
        while not lines(web, "websocket_closed", path="/ws/obey/slow"):
            quick.send(str(heard))
            assert quick.recv(timeout=PATIENCE) == f"you said {heard}"
            heard += 1
            assert heard < 1_500
            time.sleep(0.02)
    [line] = lines(web, "websocket_closed", path="/ws/obey/slow")
    assert line["code"] == CloseCode.TOO_SLOW
    assert line["reason"].startswith("A message has waited")  # not that it answers no ping
    assert line["sent"] < 1000
    assert [each["code"] for each in lines(web, "consumer_heard", name="slow")] == [1013]


def test_1013_for_a_client_that_pings_and_does_not_read(web: Web) -> None:
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
    with deaf(web, "pings", make().key) as raw, suppress(ConnectionError):
        for _ in range(2_000):
            raw.sendall(ping * 500)
        pytest.fail("It takes pings without end.")
    assert settles(lambda: bool(lines(web, "websocket_closed", path="/ws/obey/pings")))
    [line] = lines(web, "websocket_closed", path="/ws/obey/pings")
    assert (line["code"], line["reason"]) == (1013, "The answers to pings are not read.")


def test_1006_for_a_connection_that_broke(web: Web) -> None:
    with deaf(web, "broken", make().key) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert settles(lambda: bool(lines(web, "websocket_closed", path="/ws/obey/broken")))
    assert lines(web, "websocket_closed", path="/ws/obey/broken")[0]["code"] == 1006


def test_1001_when_the_process_stops() -> None:
    """200 that listen, one that reads nothing, and a handshake that is not done: the process ends
    within its bounds and with 0."""
    given = {"WEBSOCKETS_PER_CALLER": "0", "LOG_LEVEL": "INFO"}
    with (
        web_process(DJANGO_SETTINGS_MODULE=SETTINGS, **given) as web,
        ExitStack() as stack,
        deaf(web, "slow") as raw,
        web.socket() as waiting,
    ):
        clients = [stack.enter_context(opened(web, "/ws/obey/many")) for _ in range(200)]
        for client in clients:
            client.recv(timeout=PATIENCE)
        raw.sendall(Frame(Opcode.TEXT, b"flood").serialize(mask=True))
        waiting.sendall(
            b"GET /ws/obey/wait HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        time.sleep(0.3)  # until it is under way; a 503 would be the same before
        os.kill(web.process.pid, 15)
        assert [code_of(client) for client in clients] == [CloseCode.GOING_AWAY] * 200
        assert waiting.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
        assert web.process.stop() == 0
        codes = [line["code"] for line in lines(web, "websocket_closed")]
        assert codes == [1001] * 201
        heard = [line["code"] for line in lines(web, "consumer_heard", name="many")]
        assert heard == [1001] * 200
        assert lines(web, "unhandled_error") == []
