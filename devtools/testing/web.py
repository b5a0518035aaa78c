"""A client of the web process that sends exactly the bytes it is given."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from devtools.testing.patience import PATIENCE
from devtools.testing.processes import Process, child_environment, command_of, free_port, running

__all__ = ["JSON", "Answer", "Web", "assert_error", "web_process"]

JSON = {"Content-Type": "application/json"}
Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `header` gives "" for one that is not there."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())

    @property
    def json(self) -> Any:
        """The body, numbers with a point as Decimal."""
        assert self.header("content-type") == "application/json", self.header("content-type")
        return json.loads(self.body, parse_float=Decimal)


@dataclass(frozen=True, slots=True)
class Web:
    """The process and the port it listens on."""

    port: int
    process: Process

    def request(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = PATIENCE,
    ) -> Answer:
        """One request on a connection of its own; a body that is no bytes goes out in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            with suppress(BrokenPipeError):  # it may answer, and hang up, before it has read all
                connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, tuple(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(
        self, path: str, value: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """POST JSON; without a value no body at all."""
        if value is None:
            return self.request("POST", path, headers=headers)
        body = json.dumps(value).encode()
        return self.request("POST", path, body=body, headers=JSON | dict(headers or {}))

    @contextmanager
    def socket(self) -> Iterator[socket.socket]:
        """For what no HTTP client would send."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as raw:
            yield raw


def assert_error(answer: Answer, status: int, *extra: str) -> dict[str, Any]:
    """The one shape of errors; its body."""
    assert answer.status == status, answer.body
    body: dict[str, Any] = answer.json
    assert body.keys() == {"error", "details", *extra}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert isinstance(body["details"], list)
    for detail in body["details"]:
        assert detail.keys() == {"field", "message"}
        assert detail["field"]
        assert detail["message"]
    return body


@contextmanager
def web_process(**environment: str) -> Iterator[Web]:
    """A web process on this test run's database; `environment` as for child_environment."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    with running(command_of("web", port), child_environment(**environment), url) as process:
        yield Web(port, process)
