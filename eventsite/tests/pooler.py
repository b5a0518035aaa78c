"""A small pooler in front of the real PostgreSQL, as pgbouncer with pool_mode transaction or session."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["pooler_to"]

_ASKS_FOR_ENCRYPTION = (80_877_103, 80_877_104)  # SSLRequest, GSSENCRequest
_NEEDS_NO_ANSWER = (0, 12)  # AuthenticationOk, AuthenticationSASLFinal


@contextmanager
def pooler_to(host: str, port: int, *, by_transaction: bool) -> Iterator[int]:
    """Its port. Each client opens a server connection; `by_transaction`: each transaction takes the
    one that was given back last, else each client keeps its own."""
    pool: list[socket.socket] = []
    opened: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        server = socket.create_connection((host, port))
        opened.extend((client, server))
        with suppress(OSError):  # the end of the test
            _begin(client, server)
            own = pool if by_transaction else []
            own.append(server)
            while _transaction(client, own):
                pass
        client.close()

    def accept() -> None:
        with suppress(OSError):  # the end of the test
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            for each in opened:
                each.close()


def _begin(client: socket.socket, server: socket.socket) -> None:
    """Until the server is ready; the client answers its questions about the password itself."""
    while True:
        length = _read(client, 4)
        rest = _read(client, struct.unpack("!I", length)[0] - 4)
        if struct.unpack("!I", rest[:4])[0] not in _ASKS_FOR_ENCRYPTION:
            break
        client.sendall(b"N")
    server.sendall(length + rest)
    while True:
        message = _message(server)
        client.sendall(message)
        if message[:1] == b"Z":
            return
        if message[:1] == b"R" and struct.unpack("!I", message[5:9])[0] not in _NEEDS_NO_ANSWER:
            server.sendall(_message(client))


def _transaction(client: socket.socket, pool: list[socket.socket]) -> bool:
    """Pass one on to a server of the pool; whether the client is still there."""
    message = _message(client)
    if message[:1] in (b"", b"X"):
        return False
    server = pool.pop()
    status = b""
    while status != b"I":
        while message[:1] not in (b"Q", b"S"):
            server.sendall(message)
            message = _message(client)
        server.sendall(message)
        answer = b""
        while answer[:1] != b"Z":
            answer = _message(server)
            client.sendall(answer)
        status = answer[5:6]
        if status != b"I":
            message = _message(client)
    pool.append(server)
    return True


def _message(end: socket.socket) -> bytes:
    """One whole message, its kind first; empty at the end."""
    kind = _read(end, 1)
    if not kind:
        return b""
    length = _read(end, 4)
    return kind + length + _read(end, struct.unpack("!I", length)[0] - 4)


def _read(end: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count and (part := end.recv(count - len(read))):
        read += part
    return read
