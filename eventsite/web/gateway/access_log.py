"""The access log: of what was answered a line, and a place in the metrics, written for many at once, at most
every two milliseconds."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any, NamedTuple

import msgspec

from eventsite.web.gateway import metrics
from eventsite.web.gateway.ids import RequestIds

__all__ = ["AccessLog", "Call"]

_METHOD_SHOWN = 64  # characters; a longer one is none that anybody uses
_PATH_SHOWN = 1_000  # characters of a path that stand in a line
PAUSE = 0.002  # seconds behind a write without another; a kill takes with it what came since


class Call(NamedTuple):
    """What was called, the pattern of its route, by whom, and the ids."""

    path: str
    route: str
    caller: str
    ids: RequestIds


class _Line(msgspec.Struct):
    """An answered request; the beginning of a WebSocket, or (with a code) its end, whose `received`
    is from the client."""

    event: str
    service: str
    at: datetime
    path: str
    route: str
    caller: str
    correlation_id: str
    trace_id: str
    span_id: str
    method: str | msgspec.UnsetType = msgspec.UNSET
    status: int | msgspec.UnsetType = msgspec.UNSET
    duration_ms: float | msgspec.UnsetType = msgspec.UNSET
    code: int | msgspec.UnsetType = msgspec.UNSET
    seconds: float | msgspec.UnsetType = msgspec.UNSET
    sent: int | msgspec.UnsetType = msgspec.UNSET
    received: int | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    logger: str = "gateway"
    level: str = "info"


class AccessLog:
    """Writes one JSON object a request to standard error, shaped like every other line; the chain
    of steps in eventsite.telemetry.logs would cost as much as all the rest of the gateway. `level`: what
    LOG_LEVEL says; above INFO there are no lines. `console`: makes a line for people instead.
    Belongs to one event loop."""

    def __init__(
        self,
        *,
        service: str,
        level: str,
        console: Callable[[Mapping[str, Any]], str] | None = None,
        pause: float = PAUSE,
    ) -> None:
        self._console = console
        self._service = service
        self._pause = pause
        self._silent = logging.getLevelNamesMapping()[level.upper()] > logging.INFO
        self._encoder = msgspec.json.Encoder()
        self._lines: list[_Line] = []
        self._answers: dict[metrics.Kind, list[float]] = {}
        self._next = 0.0  # time of the loop before which nothing is written
        self._closed = False

    def close(self) -> None:
        """Write what is left, and at once what may still come; for the end of the process."""
        self._closed = True
        self.flush()

    def note(self, call: Call, *, method: str, status: int, seconds: float) -> None:
        """One request; a status of 0 says that it was not answered."""
        method = method[:_METHOD_SHOWN]
        self._answers.setdefault((method, call.route, status), []).append(seconds)
        duration = round(seconds * 1000, 2)
        self.note_socket("request", call, method=method, status=status, duration_ms=duration)

    def note_socket(self, event: str, call: Call, **more: Any) -> None:
        """`websocket_opened`; `websocket_closed`, which has a code, seconds and messages too."""
        if not self._lines:
            self._flush_soon()
        ids = call.ids
        self._lines.append(
            _Line(
                event,
                self._service,
                datetime.now(UTC),
                call.path[:_PATH_SHOWN],
                call.route,
                call.caller,
                ids.trace.correlation_id,
                ids.trace_id,
                ids.span_id,
                **more,
            )
        )
        if self._closed:
            self.flush()

    def _flush_soon(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._next:
            loop.call_at(self._next, self.flush)
        else:
            loop.call_soon(self.flush)
        self._next = max(now, self._next) + self._pause

    def flush(self) -> None:
        """Count and write what is left."""
        answers, self._answers = self._answers, {}
        for kind, durations in answers.items():
            metrics.count(kind, durations)
        lines, self._lines = self._lines, []
        if not self._silent:
            for piece in _pieces(self._encoded(lines)):
                sys.stderr.buffer.write(piece)
                sys.stderr.buffer.flush()

    def _encoded(self, lines: Sequence[_Line]) -> bytes:
        if self._console is not None:
            shown = (self._console(msgspec.to_builtins(line)) for line in lines)
            return "".join(f"{line}\n" for line in shown).encode("utf-8", "backslashreplace")
        try:
            return self._encoder.encode_lines(lines)
        except UnicodeEncodeError:  # a path with half a character
            for line in lines:
                line.path = line.path.encode("utf-8", "backslashreplace").decode()
            return self._encoder.encode_lines(lines)


def _pieces(text: bytes) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes at once: processes that share one do not tear them."""
    begin = 0
    while len(text) - begin > PIPE_BUF:
        end = text.rfind(b"\n", begin, begin + PIPE_BUF) + 1
        end = end or text.index(b"\n", begin) + 1  # one line that is too long by itself
        yield text[begin:end]
        begin = end
    yield text[begin:]
