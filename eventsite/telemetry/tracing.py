"""Whether this process sends its spans, and its last ones: the SDK itself is eventsite/telemetry/otlp.py,
which is loaded only where the environment names a receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celery.signals import worker_process_shutdown
from django.conf import settings

__all__ = ["configure", "stop", "stop_in_background"]

_stop: Callable[[], None] | None = None


def configure() -> None:
    """Set the SDK up as the settings want it, once; nothing runs before the first span."""
    global _stop
    if not settings.TRACES_ENDPOINT or _stop is not None:
        return
    from eventsite.telemetry import otlp

    _stop = otlp.send_spans(to=settings.TRACES_ENDPOINT, service=settings.SERVICE_NAME)
    # Each process of a Celery worker ends without Python's own farewell.
    worker_process_shutdown.connect(lambda **_: stop(), weak=False)


def stop() -> None:
    """Send what is still queued, for two seconds at most: the last act of a process. Spans that end
    later are dropped."""
    if _stop is not None:
        _stop()


async def stop_in_background() -> None:
    """The same where an event loop must not wait."""
    await asyncio.to_thread(stop)
