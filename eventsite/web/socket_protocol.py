"""A WebSocket connection under uvicorn, with the bounds and the close codes that uvicorn leaves open."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from eventsite.web.gateway.refusals import Refused, stopping
from restapi.sockets import PUSH, CloseCode

__all__ = ["MESSAGE_BYTES", "PING_SECONDS", "SocketProtocol", "text_frame"]

MESSAGE_BYTES = 4_096  # of a client's message
FRAGMENTS = 1_024  # of a client's message: empty ones have no bytes to be counted by
PING_SECONDS = 20.0  # between two pings, and for the answer to one
CLOSE_SECONDS = 2.0  # for a client to answer our close, less than the server's stop has
PONG_BYTES = 65_536  # that wait for a client who pings and does not read
SWITCHING = 101


def text_frame(text: bytes) -> bytes:
    """A text message as it travels to a client: the same to each, since none has an extension."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


class _Handshake(ServerProtocol):
    """Refuses a malformed handshake in the shape of all other errors."""

    def reject(self, status: Any, text: str) -> Response:
        return self.answer_of(Refused(int(status), text.strip().splitlines()[0]))

    def answer_of(self, refused: Refused) -> Response:
        """An HTTP answer in place of the WebSocket."""
        response = super().reject(refused.status, "")
        response.body = refused.body
        del response.headers["Content-Type"], response.headers["Content-Length"]
        response.headers["Content-Type"] = "application/json"
        response.headers["Content-Length"] = str(len(refused.body))
        for name, value in refused.headers:
            if name != b"connection":
                response.headers[name.decode()] = value.decode()
        return response


class SocketProtocol(WebSocketsSansIOProtocol):
    """Added to uvicorn's: 1001 at a stop, not 1012, and time for the client to answer it; a close that
    does not wait for a client who does not read; no close that hangs on such a client; 1013 for who
    answers no ping; 1006, not 1005, for a broken connection; bounds of fragments and of pongs; a push of
    frames that are ready.
    """

    def __init__(self, *args: Any, close_seconds: float = CLOSE_SECONDS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._close_seconds = close_seconds
        self.conn: _Handshake = _Handshake(max_size=self.config.ws_max_size, logger=self.logger)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == SWITCHING:
            self.scope["extensions"][PUSH] = self.push  # type: ignore[assignment]

    def push(self, frame: bytes) -> bool:
        """Write a whole frame now, without a task; False, and nothing is written, where `send` would
        wait or raise."""
        if self.conn.state is not State.OPEN or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(frame)
        return True

    async def send(self, message: Any) -> None:
        """Raises ClientDisconnected, which is an OSError, when nobody is there to send it to."""
        if message["type"] == "websocket.close" and self.handshake_complete:
            self._close(message.get("code", 1000), message.get("reason") or "")
            return
        await self.writable.wait()
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)

    def shutdown(self) -> None:
        """The server stops. It waits for the connection's end, which has a bound."""
        if self.handshake_complete:
            self._close(CloseCode.GOING_AWAY, "This process is stopping.")
            return
        self.conn.send_response(self.conn.answer_of(stopping("GET", "unknown")))
        self.handshake_complete = self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def _close(self, code: int, reason: str) -> None:
        """Send a close frame behind what waits already, and end the connection when the client
        has answered it or its time is up. Senders that wait are released."""
        if self.close_sent or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason)
        self._disconnect(code, reason)

    def _disconnect(self, code: int, reason: str) -> None:
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.writable.set()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._end_in_time()

    def _end_in_time(self) -> None:
        """`close` of a transport waits until the client has read everything."""
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(self._close_seconds, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if self.conn.parser_exc is None:  # what follows a violation is dropped
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """The client broke the protocol. What it sends further is read and dropped until it ends: a
        connection that is closed with bytes unread is reset, and the client loses the close code."""
        assert self.conn.close_sent is not None
        self._disconnect(self.conn.close_sent.code, self.conn.close_sent.reason)

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        if self.transport.is_closing() and not self.disconnected:
            self._end_in_time()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS:
            self._close(CloseCode.TOO_BIG, f"The message has more than {FRAGMENTS} fragments.")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # by itself uvicorn would log a traceback
                self.frames = []
                self._close(CloseCode.NO_TEXT, "The text message is not UTF-8.")
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > PONG_BYTES:
            self._close(CloseCode.TOO_SLOW, "The client reads too slowly: pongs wait.")
        else:
            super().handle_ping()

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        self.pending_ping_payload = None
        if self.read_paused:  # it is the consumer who does not read
            self.schedule_ping()
        else:
            self._close(CloseCode.TOO_SLOW, "A ping was not answered.")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.close_rcvd is None:
            # The first one counts; uvicorn's own says 1005, that the client closed without a code.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        super().connection_lost(exc)
