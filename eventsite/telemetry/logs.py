"""Logs of every process: constant messages, ids as fields, one JSON object or one line an event."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from eventsite.settings.env import environment
from eventsite.telemetry import log_lines
from outbox.tracing import current_traceparent
from restapi.context import CURRENT_TRACE

__all__ = ["configure", "console_line"]

# What a message or an error brings along may be a megabyte long; a line names it, and tables hold it.
_FIELD_LIMIT = 2_000
_STACK_LIMIT = 16_000

_shared: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]


def configure(level: str, log_format: str) -> None:
    """Send structlog and the standard library to standard error, one JSON object a line, or with
    format `console` one line for people.

    Our own lines do not pass through the standard library: that costs as much as a request.
    """
    steps: list[Any] = [
        _add_request_ids,
        structlog.processors.format_exc_info,
        _shorten,
        _to_json if log_format == "json" else _to_console,
    ]
    structlog.configure(
        processors=[*_shared, _add_logger_name, *steps],
        logger_factory=_NamedLogger,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(_standard_library(level.upper(), steps))


class _NamedLogger:
    """Writes lines to standard error, and keeps the name that get_logger was given."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """One write a line, so that threads do not mix theirs."""
        sys.stderr.buffer.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        sys.stderr.buffer.flush()

    debug = info = warning = error = critical = exception = msg


def _add_logger_name(logger: _NamedLogger, method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


def _standard_library(level: str, steps: list[Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_shared, structlog.stdlib.add_logger_name],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *steps],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # One line for each task received and done says nothing that our own lines do not.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
            "psycopg.pool": {"level": "ERROR"},
            "urllib3": {"level": "WARNING"},  # its lines are about the sending of spans
        },
    }


def _shorten(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The beginning of a long text, of a long stack the end, and how much was left out."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > _FIELD_LIMIT:
            if name != "exception":
                event[name] = f"{value[:_FIELD_LIMIT]}… ({len(value) - _FIELD_LIMIT} more)"
            elif len(value) > _STACK_LIMIT:
                event[name] = f"({len(value) - _STACK_LIMIT} more) …{value[-_STACK_LIMIT:]}"
    return event


def _to_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Four times as fast as the standard library's encoder, and never fails for an odd value."""
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a character, of a payload that is no UTF-8
        return json.dumps(event, default=str)


def console_line(entry: Mapping[str, Any]) -> str:
    """The same for people; in colour where standard error is a terminal."""
    colour = sys.stderr.isatty() and not environment().no_color
    return log_lines.of_entry(entry, source=str(entry.get("service", "")), colour=colour)


def _to_console(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return console_line(event)


def _add_request_ids(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["service"] = environment().service_name
    trace = CURRENT_TRACE.get()
    if trace.correlation_id:
        event.setdefault("correlation_id", trace.correlation_id)
    traceparent = trace.traceparent or current_traceparent()
    if traceparent:
        _, trace_id, span_id, _ = traceparent.split("-")
        event.setdefault("trace_id", trace_id)
        event.setdefault("span_id", span_id)
    return event
