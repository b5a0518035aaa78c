"""The Celery app with a fault: after SIGUSR2 the main process of a worker does nothing any more.

`manage.py run_worker effects --app devtools.testing.stuck_worker`
"""

from __future__ import annotations

import signal
import time
from typing import Any

from eventsite.celery import app

__all__ = ["app"]


def _hang(*args: Any) -> None:
    while True:
        time.sleep(60)


signal.signal(signal.SIGUSR2, _hang)
