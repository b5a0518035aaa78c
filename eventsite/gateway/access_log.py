"""The access log: one JSON object a request, in one write, shaped like every other line."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

from eventsite.gateway.ids import RequestIds

__all__ = ["AccessLog"]


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


class AccessLog:
    """Writes to standard error, as eventsite.logs does; its chain of steps would cost as much as
    all the rest of the gateway. `level`: what LOG_LEVEL says."""

    def __init__(self, *, service: str, level: str) -> None:
        self._service = service
        self._silent = logging.getLevelNamesMapping()[level.upper()] > logging.INFO
        self._encoder = msgspec.json.Encoder()

    def write(
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
        if self._silent:
            return
        line = _Line(
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
        try:
            encoded = self._encoder.encode(line)
        except UnicodeEncodeError:  # a path with half a character
            line.path = path.encode("utf-8", "backslashreplace").decode()
            encoded = self._encoder.encode(line)
        sys.stderr.buffer.write(encoded + b"\n")
        sys.stderr.buffer.flush()
