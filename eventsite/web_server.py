"""The web process: uvicorn with our application, and bounds for who never finishes a request.

docs/adr/0007-uvicorn.md says why uvicorn.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from eventsite.gateway.refusals import BodyIncomplete, Refused

__all__ = ["APPLICATION", "HttpProtocol", "serve"]

APPLICATION = "eventsite.asgi:application"
HEAD_SECONDS = 10.0  # for request line and headers
HEAD_BYTES = 65_536
KEEP_ALIVE_SECONDS = 75  # longer than the pools of usual clients keep an idle connection
STOP_SECONDS = 8  # for requests under way; what hangs on a server may not keep us from stopping
# Connections that come while the loop is busy. Those it has are bounded by the limit of open files,
# what waits in them by the queues behind it.
BACKLOG = 16_384


class HttpProtocol(HttpToolsProtocol):
    """One client. What uvicorn leaves open: how long and how large the head of a request may be.

    A client that has not sent its first or next head whole in HEAD_SECONDS is hung up on, without
    an answer; one larger than HEAD_BYTES is a 431. Refusals have the shape of all other errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_begun = True
        self._head_bytes = 0
        self._too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._too_late = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._head_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_begun = False
        self._head_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._head_begun:
            if self._too_late is not None:
                self._in_time()
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(Refused(431, f"Request line and headers exceed {HEAD_BYTES} bytes."))
        elif self._too_late is None:
            self._too_late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Of what the parser has refused."""
        if self.cycle is not None and self.cycle.more_body:
            self._refuse(BodyIncomplete())
        else:
            self._refuse(Refused(400, "This is no HTTP, or a method that nobody knows."))

    def _refuse(self, refused: Refused) -> None:
        length = str(len(refused.body)).encode()
        headers = (b"content-type: application/json\r\ncontent-length: ", length, b"\r\n")
        head = (STATUS_LINE[refused.status], *headers, b"connection: close\r\n\r\n")
        self.transport.write(b"".join((*head, refused.body)))
        self.transport.close()

    def _in_time(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None


def serve(application: str = APPLICATION, *, host: str, port: int, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted; returns at the end.

    `workers`: processes that share the port, under one that starts them again. Ends the process
    with exit code 1 or 3 if the port is taken or the application does not start.
    """
    # uvicorn hands the signal on when it has stopped: a stop as ordered is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        application,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http=HttpProtocol,
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,  # ours is Django's
        log_level="warning",
        access_log=False,  # the gateway's journal says more
        server_header=False,
        proxy_headers=False,  # whom to believe is the gateway's to say
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
