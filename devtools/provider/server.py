"""A provider of messages as a program of its own: it notes what arrives, and answers by rules.

An arrival is noted when the head of a request is there, before its body is read and whatever comes of
it: what was begun to be sent here can be compared with what should have been.

    PUT /control   {"rules": [Rule, …]}: the first that matches says what is done; none: 200
    GET /arrivals  every arrival so far, the oldest first, as a JSON list of Arrival
    POST anything  a message
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httptools
import msgspec
import uvloop

__all__ = ["AnswerRule", "Arrival", "serve"]


class AnswerRule(msgspec.Struct, kw_only=True):
    """What is done with messages of a channel, to a recipient, or to a path; "": any.

    share  of them, drawn at random under `seed`; the others go on to the next rule
    times  it matches; 0: always
    do     answer, hang (no answer), hold (the answer, until the rules change), cut (the connection,
           when the request was read), cut_body (in the middle of the answer)
    after  seconds before the answer
    """

    channel: str = ""
    recipient: str = ""
    path: str = ""
    share: float = 1.0
    seed: int = 0
    times: int = 0
    do: str = "answer"
    status: int = 200
    headers: dict[str, str] = {}
    body: str | None = None
    after: float = 0.0


class Arrival(msgspec.Struct, kw_only=True):
    """One request. Times are of CLOCK_MONOTONIC, which all processes of a machine share, in seconds.

    status       that it was answered with; 0: not answered
    retry_after  what the answer asked for
    """

    at: float
    path: str
    key: str
    headers: dict[str, str]
    to: str = ""
    channel: str = ""
    content: str = ""
    body: str = ""
    status: int = 0
    retry_after: str = ""
    answered_at: float = 0.0


class _Control(msgspec.Struct):
    rules: list[AnswerRule]


class _Sent(msgspec.Struct):
    to: str
    channel: str
    content: str


_read_control = msgspec.json.Decoder(_Control).decode
_read_sent = msgspec.json.Decoder(_Sent).decode
_encode = msgspec.json.Encoder().encode


class Book:
    """What has arrived, and what is done with what comes."""

    def __init__(self, log: int | None = None, *, keep: bool = True) -> None:
        self.arrivals: list[Arrival] = []
        self.count = 0
        self._keep = keep
        self._rules: list[AnswerRule] = []
        self._random: dict[int, random.Random] = {}
        self._held: list[Callable[[], None]] = []
        self._log = log

    def arrived(self, path: str, headers: dict[str, str]) -> Arrival:
        """Note it: first of all, and in the file before anything else is done."""
        arrival = Arrival(
            at=time.monotonic(), path=path, key=headers.get("idempotency-key", ""), headers=headers
        )
        if self._log is not None:
            line = f"{arrival.at:.6f} {arrival.key} {path}\n"
            os.write(self._log, line.encode())
        self.count += 1
        if self._keep:
            self.arrivals.append(arrival)
        return arrival

    def control(self, rules: list[AnswerRule]) -> None:
        """From now on; what was held until now is answered."""
        self._rules = rules
        self._random = {id(rule): random.Random(rule.seed) for rule in rules}  # noqa: S311
        held, self._held = self._held, []
        for answer in held:
            answer()

    def hold(self, answer: Callable[[], None]) -> None:
        """Give this answer when the rules change."""
        self._held.append(answer)

    def rule_for(self, arrival: Arrival) -> AnswerRule:
        """What is done with it."""
        for rule in self._rules:
            if rule.channel not in ("", arrival.channel):
                continue
            if rule.recipient not in ("", arrival.to):
                continue
            if rule.path not in ("", arrival.path):
                continue
            if rule.times < 0 or self._random[id(rule)].random() >= rule.share:
                continue
            if rule.times:
                rule.times = rule.times - 1 or -1
            return rule
        return _DEFAULT


_DEFAULT = AnswerRule()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request after the other."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    # -- the parser's

    def on_message_begin(self) -> None:
        self._path, self._body = b"", b""
        self._headers: dict[str, str] = {}
        self._arrival: Arrival | None = None

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._parser.get_method() == b"POST":
            self._arrival = self._book.arrived(self._path.decode(), self._headers)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._arrival is None:
            self._operate()
            return
        arrival = self._arrival
        arrival.body = self._body.decode("utf-8", "replace")
        try:
            sent = _read_sent(self._body)
        except msgspec.DecodeError:
            self._answer(arrival, AnswerRule(status=400))
            return
        arrival.to, arrival.channel, arrival.content = sent.to, sent.channel, sent.content
        rule = self._book.rule_for(arrival)
        if rule.do == "hang":
            return
        if rule.do == "hold":
            self._book.hold(partial(self._answer, arrival, rule))
        elif rule.do == "cut":
            self._transport.abort()
        elif rule.after:
            asyncio.get_running_loop().call_later(rule.after, self._answer, arrival, rule)
        else:
            self._answer(arrival, rule)

    def _operate(self) -> None:
        if self._parser.get_method() == b"PUT":
            self._book.control(_read_control(self._body).rules)
            self._write(204, {}, b"")
        else:
            self._write(200, {}, _encode(self._book.arrivals))

    def _answer(self, arrival: Arrival, rule: AnswerRule) -> None:
        if self._transport.is_closing():
            return
        arrival.status, arrival.answered_at = rule.status, time.monotonic()
        arrival.retry_after = rule.headers.get("Retry-After", "")
        if rule.body is not None:
            body = rule.body.encode()
        elif 200 <= rule.status < 300:
            said = {
                "messageId": f"msg-{self._book.count}",
                "status": "accepted",
                "timestamp": datetime.now(UTC).isoformat(),
            }
            body = _encode(said)
        else:
            body = b""
        self._write(rule.status, rule.headers, body, cut=rule.do == "cut_body")

    def _write(
        self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        lines = [f"HTTP/1.1 {status} {'OK' if status < 300 else 'No'}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if status != 204:
            lines.append(f"Content-Length: {len(body) + (100 if cut else 0)}")
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        if cut:
            self._transport.close()


def serve(port: int, *, listening: Callable[[int], None], log: str = "", keep: bool = True) -> None:
    """Serve until the process ends. `log`: a file that gets a line `<seconds> <key> <path>` for each
    arrival, before it is answered; `keep`: whether GET /arrivals has them too; `listening` is given the
    port."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else None
    book = Book(file, keep=keep)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(book), "127.0.0.1", port)
        listening(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())
