"""The gateway around WebSockets: what ends an open one, and with which close code, on a real process."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from apikeys import services
from apikeys.models import prefix_of
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.web import Web, web_process
from eventsite.tests.socket_clients import SETTINGS, code_of, lines, make, opened
from restapi.sockets import CloseCode

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
    assert line["reason"].startswith(
        "The client reads too slowly: a message waited"
    )  # not that it answers no ping
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
    assert (line["code"], line["reason"]) == (1013, "The client reads too slowly: pongs wait.")


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
