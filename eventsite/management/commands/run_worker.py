"""`manage.py run_worker ROLE`: a Celery worker on the queues of one role."""

from __future__ import annotations

import os
from typing import Any

from celery.app.utils import find_app
from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from eventsite.roles import ROLES

# What workers would say to each other only costs processor time and Redis round trips.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Command(BaseCommand):
    """Ends with the worker's own exit code, and with 1 if a declaration is wrong."""

    help = "Run a Celery worker on the queues of one role; `manage.py wiring` lists the roles."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("role", choices=sorted(ROLES))
        parser.add_argument(
            "--concurrency",
            type=int,
            default=0,
            help="processes; default: WORKER_CONCURRENCY, or what eventsite/roles.py says",
        )
        parser.add_argument("--app", default="eventsite", help="module of the Celery app")

    def handle(self, *args: Any, role: str, concurrency: int, app: str, **options: Any) -> None:
        processes = concurrency or settings.CELERY_WORKER_CONCURRENCY or ROLES[role].processes
        queues = ",".join(settings.WIRING.roles[role])
        # Celery would run the system checks again, and start whatever they find; this command has refused.
        os.environ["CELERY_SKIP_CHECKS"] = "1"
        find_app(app).worker_main(
            ["-q", "worker", "-Q", queues, "-c", str(processes), "-n", f"{role}@%h", *QUIET]
        )
