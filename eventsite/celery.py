"""The Celery app of worker and beat."""

from __future__ import annotations

import os
from typing import Any

import kombu
import structlog
from celery import Celery, beat
from celery.app.amqp import AMQP
from celery.signals import (
    beat_init,
    setup_logging,
    task_prerun,
    worker_init,
    worker_process_shutdown,
)
from django.db import close_old_connections
from prometheus_client import multiprocess

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")

__all__ = ["Scheduler", "app"]

RECONNECT_SECONDS = 2.0

log = structlog.get_logger("eventsite.celery")


class _Connection(kombu.Connection):
    """Tries Redis again every two seconds; by default the pauses grow to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        steady = {"interval_start": RECONNECT_SECONDS, "interval_step": 0}
        return super().ensure_connection(*args, **steady | options)


class _AMQP(AMQP):
    Connection = _Connection


class Scheduler(beat.Scheduler):
    """Celery's, but a Redis that is away is one line a task instead of two tracebacks."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except beat.SchedulingError as error:
            log.warning("task_not_sent", task=entry.task, error=str(error))


app = Celery("eventsite", amqp=_AMQP)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()


@setup_logging.connect
def _keep_our_logging(**kwargs: Any) -> None:
    """Celery leaves logging alone when somebody listens: eventsite.apps has configured it."""


@task_prerun.connect
def _begin_like_a_request(**kwargs: Any) -> None:
    """Celery would connect anew for each task (see CELERY_DB_REUSE_MAX); this keeps the
    connection and drops it only when it is unusable."""
    close_old_connections()


@worker_init.connect
def _serve_worker_endpoints(**kwargs: Any) -> None:
    from outbox import ops_server

    ops_server.serve_in_background("worker")


@beat_init.connect
def _serve_beat_endpoints(**kwargs: Any) -> None:
    from outbox import ops_server

    ops_server.serve_in_background("beat")


@worker_process_shutdown.connect
def _forget_live_metrics(pid: int, **kwargs: Any) -> None:
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
