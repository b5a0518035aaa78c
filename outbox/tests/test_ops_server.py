"""The small server of a process without other HTTP keeps the contract of every endpoint."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from devtools.testing.patience import PATIENCE
from outbox.process import ops_server

ALLOWED = {"GET", "HEAD", "OPTIONS"}


@dataclass
class Ops:
    """It, asked by HTTP."""

    port: int = 0
    well: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server() -> Ops:
    ops = Ops()
    ops.port = ops_server.serve_in_background("test", is_well=lambda: ops.well)
    return ops


@pytest.fixture
def ops(server: Ops) -> Iterator[Ops]:
    yield server
    server.well = True


def test_alive(ops: Ops) -> None:
    assert ops.ask("GET", "/health") == (200, b'{"status": "alive"}')
    assert ops.headers["content-type"] == "application/json"
    assert "retry-after" not in ops.headers


def test_a_process_that_is_stuck_says_when_to_ask_again(ops: Ops) -> None:
    ops.well = False
    assert ops.ask("GET", "/health?x=1") == (503, b'{"status": "stuck"}')
    assert int(ops.headers["retry-after"]) > 0


def test_metrics(ops: Ops) -> None:
    status, text = ops.ask("GET", "/metrics")
    assert status == 200
    assert ops.headers["content-type"].startswith("text/plain")
    assert b"# TYPE " in text


@pytest.mark.parametrize("path", ["/metrics", "/health"])
def test_head_is_get_without_a_body(ops: Ops, path: str) -> None:
    _, body = ops.ask("GET", path)
    kind = ops.headers["content-type"]
    assert ops.ask("HEAD", path) == (200, b"")
    assert ops.headers["content-type"] == kind
    assert int(ops.headers["content-length"]) > 0 < len(body)


@pytest.mark.parametrize("path", ["/metrics", "/health", "/health/ready"])
def test_other_methods(ops: Ops, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "TRACE", "BREW"):
        status, body = ops.ask(method, path)
        assert (status, set(ops.headers["allow"].split(", "))) == (405, ALLOWED)
        assert json.loads(body) == {"error": f'Method "{method}" not allowed.', "details": []}
        assert ops.headers["content-type"] == "application/json"
    assert ops.ask("OPTIONS", path)[0] == 200
    assert set(ops.headers["allow"].split(", ")) == ALLOWED


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/", "/orders", "/health/", "/health/ready/x"])
def test_unknown_path(ops: Ops, method: str, path: str) -> None:
    status, body = ops.ask(method, path)
    assert (status, ops.headers["content-type"]) == (404, "application/json")
    if method != "HEAD":
        error = {"error": f"There is nothing at {path}.", "details": []}
        assert json.loads(body) == error


def test_a_request_that_cannot_be_read_is_told_so_in_json(ops: Ops) -> None:
    with socket.create_connection(("127.0.0.1", ops.port), timeout=PATIENCE) as raw:
        raw.sendall(b"GET /health HTTP/9.9\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert b"Content-Type: application/json" in answer or answer.startswith(b"{")
    body = json.loads(answer[answer.index(b"{") :])
    assert body == {"error": "Invalid HTTP version (9.9).", "details": []}
