"""The Celery app of worker and beat."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, worker_init, worker_process_shutdown
from prometheus_client import multiprocess

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")

__all__ = ["app"]

app = Celery("eventsite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()


@setup_logging.connect
def _keep_our_logging(**kwargs: Any) -> None:
    """Celery leaves logging alone when somebody listens: eventsite.apps has configured it."""


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
