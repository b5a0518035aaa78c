"""The journal of what was answered: a place in the metrics, and a line in the access log.

Both at the end of a turn of the event loop, and then not again for two milliseconds: in a busy process
one write to the log and a few additions do for all that came meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from select import PIPE_BUF

import msgspec

from eventsite.gateway import metrics
from eventsite.gateway.ids import RequestIds

__all__ = ["Journal"]

PAUSE = 0.002  # seconds behind a write without another; a kill takes with it what came since


class _Line(msgspec.Struct):
    service: str
    at: datetime
    method: str
    path: str
    route: str
    status: int
    duration_ms: float
    caller: str
    correlation_id: str
    trace_id: str
    span_id: str
    event: str = "request"
    logger: str = "gateway"
    level: str = "info"


class Journal:
    """Writes one JSON object a request to standard error, shaped like every other line; the chain
    of steps in eventsite.logs would cost as much as all the rest of the gateway. `level`: what
    LOG_LEVEL says; above INFO there are no lines. Belongs to one event loop."""

    def __init__(self, *, service: str, level: str) -> None:
        self._service = service
        self._silent = logging.getLevelNamesMapping()[level.upper()] > logging.INFO
        self._encoder = msgspec.json.Encoder()
        self._lines: list[_Line] = []
        self._next = 0.0  # time of the loop before which nothing is written
        self._closed = False

    def close(self) -> None:
        """Write what is left, and at once what may still come; for the end of the process."""
        self._closed = True
        self.flush()

    def note(
        self,
        *,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
        caller: str,
        ids: RequestIds,
    ) -> None:
        """One request; a status of 0 says that it was not answered."""
        if not self._lines and not self._closed:
            loop = asyncio.get_running_loop()
            now = loop.time()
            if now < self._next:
                loop.call_at(self._next, self.flush)
            else:
                loop.call_soon(self.flush)
            self._next = max(now, self._next) + PAUSE
        self._lines.append(
            _Line(
                self._service,
                datetime.now(UTC),
                method,
                path,
                route,
                status,
                round(seconds * 1000, 2),
                caller,
                ids.trace.correlation_id,
                ids.trace_id,
                ids.span_id,
            )
        )
        if self._closed:
            self.flush()

    def flush(self) -> None:
        """Count and write what is left."""
        lines, self._lines = self._lines, []
        answers: dict[metrics.Kind, list[float]] = {}
        for line in lines:
            seconds = answers.setdefault((line.method, line.route, line.status), [])
            seconds.append(line.duration_ms / 1000)
        for kind, durations in answers.items():
            metrics.count(kind, durations)
        if not self._silent:
            for piece in _pieces(self._encoded(lines)):
                sys.stderr.buffer.write(piece)
                sys.stderr.buffer.flush()

    def _encoded(self, lines: Sequence[_Line]) -> bytes:
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
