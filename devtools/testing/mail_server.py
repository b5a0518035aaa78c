"""A mail server of one test: SMTP over a real socket, on a thread, whose answers the test chooses."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from devtools.testing.patience import PATIENCE

__all__ = ["Mail", "MailServer", "mail_server"]


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as it was taken."""

    sender: str
    recipients: tuple[str, ...]
    text: str


@dataclass
class MailServer:
    """A server that runs.

    replies  what it says to a command in place of 250, by the command's first word, for example
             {"RCPT": "550 no such user"}; CONNECT is the greeting, BODY the answer to a whole mail
    hangs    commands that it does not answer at all
    drips    seconds between the bytes of its answers
    slow     commands that it answers in drips; empty: all
    """

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    drips: float = 0.0
    slow: set[str] = field(default_factory=set)
    connections: int = 0
    most: int = 0  # connections at a time
    _open: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def opened(self) -> None:
        with self._guard:
            self.connections += 1
            self._open += 1
            self.most = max(self.most, self._open)

    def closed(self) -> None:
        with self._guard:
            self._open -= 1


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        state = self.server.state
        state.opened()
        try:
            with suppress(OSError):
                self._talk(state)
        finally:
            state.closed()

    def _talk(self, state: MailServer) -> None:
        sender, recipients = "", list[str]()
        self._say("CONNECT", "220 test")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(":")[0].split(" ")[0].upper()
            if verb == "QUIT":
                self._say("QUIT", "221 bye")
                return
            if verb == "MAIL":
                sender, recipients = line.split(":", 1)[1], []
            elif verb == "RCPT":
                recipients.append(line.split(":", 1)[1].strip("<> "))
            if verb != "DATA":
                self._say(verb, "250 yes")
                continue
            self._say("DATA", "354 go on")
            if "DATA" not in state.replies:
                text = self._text()
                if "BODY" not in state.replies:
                    state.mails.append(Mail(sender, tuple(recipients), text))
                self._say("BODY", "250 taken")

    def _text(self) -> str:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        return b"".join(lines).decode()

    def _say(self, verb: str, otherwise: str) -> None:
        state = self.server.state
        if verb in state.hangs:
            state.released.wait(PATIENCE)
            raise ConnectionError
        said = f"{state.replies.get(verb, otherwise)}\r\n".encode()
        if not state.drips or (state.slow and verb not in state.slow):
            self.wfile.write(said)
            return
        for byte in said:
            self.wfile.write(bytes([byte]))
            time.sleep(state.drips)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    state: MailServer


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """One that ends with the block."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        state = server.state = MailServer(port=server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
