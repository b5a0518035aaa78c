"""A server for tests of the generator: `python -m loadtest.tests.stub PORT`.

The first part of the path says how it behaves; it keeps the orders of `/keeps` for GET.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import sys
from collections.abc import Callable
from uuid import UUID

import uvloop

NUMBERS = itertools.count(1)
KEPT: set[bytes] = set()
STALL = 1.0  # seconds
stalled: list[float] = []


def answer(body: bytes, status: int = 201, extra: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (status, extra, len(body)) + body


def created(order_id: UUID | None = None) -> bytes:
    order_id = order_id or UUID(int=next(NUMBERS))
    return b'{"orderId":"%b","status":"CREATED","totalPrice":70}' % str(order_id).encode()


class Stub(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        _, found, length = head.lower().partition(b"content-length:")
        wanted = int(length.split(b"\r\n")[0]) if found else 0
        if len(rest) < wanted:
            return
        self.received = rest[wanted:]
        method, path, _ = head.split(b"\r\n")[0].split(b" ")
        behaviour, _, rest_of_path = path.removeprefix(b"/").partition(b"/")
        if rest_of_path == b"health/ready":
            self.transport.write(
                answer(b'{"status": "ready", "checks": {"database": "healthy"}}', 200)
            )
            return
        BEHAVIOURS[behaviour.decode()](self, method, rest_of_path)

    def ok(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(created()))

    def stall(self, method: bytes, path: bytes) -> None:
        """The whole server stands still once, 0.3 s after its first request."""
        loop = asyncio.get_running_loop()
        if not stalled:
            stalled.extend((loop.time() + 0.3, loop.time() + 0.3 + STALL))
        begin, end = stalled
        wait = end - loop.time() if begin <= loop.time() < end else 0.0
        loop.call_later(wait, self.transport.write, answer(created()))

    def health(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(b"{}", 200))

    def status_503(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(b'{"error": "no"}', 503))

    def silent(self, method: bytes, path: bytes) -> None:
        pass

    def hang_up(self, method: bytes, path: bytes) -> None:
        self.transport.close()

    def half(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(created())[:-5])
        self.transport.close()

    def reset(self, method: bytes, path: bytes) -> None:
        raw: socket.socket = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def garbage(self, method: bytes, path: bytes) -> None:
        self.transport.write(b"220 smtp.example ready\r\n\r\n")

    def twice(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(created()) * 2)

    def no_id(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(b'{"status": "ok"}'))

    def same(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(created(UUID(int=7))))

    def closes(self, method: bytes, path: bytes) -> None:
        self.transport.write(answer(created(), extra=b"connection: close\r\n"))
        self.transport.close()

    def pieces(self, method: bytes, path: bytes) -> None:
        """100 Continue, then chunks, a byte at a time."""
        body = created()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
        whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n"
        whole += chunks + b"0\r\n\r\n"
        for number in range(len(whole)):
            self.transport.write(whole[number : number + 1])

    def keeps(self, method: bytes, path: bytes) -> None:
        self._keeps(path, forgets=False)

    def forgets(self, method: bytes, path: bytes) -> None:
        """Every fifth order is answered and not kept."""
        self._keeps(path, forgets=True)

    def _keeps(self, path: bytes, *, forgets: bool) -> None:
        wanted = path.removeprefix(b"orders").removeprefix(b"/")
        if wanted:
            self.transport.write(answer(b"{}", 200 if wanted in KEPT else 404))
            return
        number = next(NUMBERS)
        order_id = UUID(int=number)
        if not forgets or number % 5:
            KEPT.add(str(order_id).encode())
        self.transport.write(answer(created(order_id)))


BEHAVIOURS: dict[str, Callable[[Stub, bytes, bytes], None]] = {
    name: getattr(Stub, name)
    for name in (
        *("ok", "stall", "status_503", "silent", "hang_up", "half", "reset", "garbage", "twice"),
        *("no_id", "same", "closes", "pieces", "keeps", "forgets", "health"),
    )
}


async def main(port: int) -> None:
    """Until it is ended."""
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
