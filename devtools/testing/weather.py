"""A TCP proxy in front of a server that can be made to fail at one exact moment, and a PostgreSQL
that takes no writes."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

import psycopg

__all__ = ["Fault", "Proxy", "proxy_to", "read_only"]


class Fault(Enum):
    """When the connection breaks; those about one statement happen once."""

    NONE = auto()
    BEFORE_INSERT = auto()  # the statement does not reach the server
    BEFORE_COMMIT = auto()  # COMMIT does not reach the server
    AFTER_COMMIT = auto()  # COMMIT is done, its answer does not reach the client
    SILENT = auto()  # connections stay, and nothing comes through any more
    SILENT_AT_COMMIT = auto()  # the same from the first COMMIT on, which does not come through
    NO_WEBSOCKET = auto()  # each request for one breaks, all else comes through
    CLOSED = auto()  # connections stay, no new one is accepted
    AWAY = auto()  # no connection is accepted, those there are have broken


class Proxy:
    """Passes bytes on, one thread a connection, until `fault` says otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._fault = Fault.NONE
        self.happened = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, fault: Fault) -> None:
        """What goes wrong next."""
        self.happened.clear()
        self._fault = fault
        if fault is Fault.AWAY:
            self._break_all()

    def close(self) -> None:
        self.set(Fault.AWAY)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _break_all(self) -> None:
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._fault in (Fault.CLOSED, Fault.AWAY):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server, suppress(OSError):
            self._open |= {client, server}
            try:
                self._pass_on(client, server)
            finally:
                self._open -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for end in select.select([client, server], [], [])[0]:
                data = end.recv(1 << 20)
                if not data:
                    return
                if self._fault is Fault.SILENT_AT_COMMIT and end is client and b"COMMIT" in data:
                    self._fault = Fault.SILENT
                    self.happened.set()
                if self._fault is Fault.SILENT:
                    continue
                if self._fault is Fault.NO_WEBSOCKET and b"\r\nUpgrade: websocket" in data:
                    return
                if end is server:
                    client.sendall(data)
                elif self._breaks_at(data):
                    self._break(server, data)
                    return
                else:
                    server.sendall(data)

    def _breaks_at(self, data: bytes) -> bool:
        words = {
            Fault.BEFORE_INSERT: b"INSERT INTO orders",
            Fault.BEFORE_COMMIT: b"COMMIT",
            Fault.AFTER_COMMIT: b"COMMIT",
        }
        return self._fault in words and words[self._fault] in data

    def _break(self, server: socket.socket, data: bytes) -> None:
        if self._fault is Fault.AFTER_COMMIT:
            server.sendall(data)
            assert b"COMMIT" in server.recv(1 << 16)
        self._fault = Fault.NONE
        self.happened.set()


@contextmanager
def proxy_to(host: str, port: int) -> Iterator[Proxy]:
    """A proxy that is gone after the block."""
    proxy = Proxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """PostgreSQL refuses writes, in the sessions that there are as well, as does a server that has
    become a standby."""

    def turn(value: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            connection.execute("SELECT pg_reload_conf()")

    turn("on")
    try:
        yield
    finally:
        turn("off")
