"""The page at /: what this is, what runs, where everything is. A browser gets HTML, every other client
JSON; what is known of the processes is shown only where no API key is required."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpResponseBase
from django.shortcuts import render
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from outbox.database import jobs
from outbox.database.ask import row_of
from outbox.process.health import ReadinessAnswer, readiness

__all__ = ["HomeView"]

# Nothing of the page is inline, and nothing comes from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
LINKS = (
    ("/ops/", "Operations", "how everything stands, and what to press; asks for a login"),
    ("/swagger/", "API", "read it and try it"),
    ("/openapi.json", "OpenAPI document", "the same for programs"),
    ("/admin/", "Admin", "orders, events, dead letters, figures; asks for a login"),
    ("/health/ready", "ReadinessAnswer", "for load balancers"),
    ("/metrics", "Metrics", "of the web processes, for Prometheus"),
)
# Jobs that beat has done every few seconds, and the sweep that a drain makes each minute; seconds.
UPKEEP_JOBS, UPKEEP_LATE = ("audit", "fold_additions", "purge", "prune_idempotency_keys"), 60
DRAIN_JOB, DRAIN_LATE = "sweep", 180


@dataclass(frozen=True, slots=True)
class Trace:
    """The last thing that some of the processes are known to have done. `late`: it should have
    been done again since."""

    name: str
    words: str
    late: bool = False


class HomeView(APIView):
    schema = None

    def get(self, request: Request) -> HttpResponseBase:
        """The page, or the same as JSON."""
        found = readiness()
        # A client that takes anything, as curl does, gets JSON; a browser names HTML first.
        wanted = request._request.get_preferred_type(["application/json", "text/html"])
        if wanted != "text/html":
            answer: HttpResponseBase = Response(
                {
                    "service": settings.SPECTACULAR_SETTINGS["TITLE"],
                    "status": found.status,
                    "checks": dict(found.checks),
                    "links": [path for path, _, _ in LINKS],
                }
            )
        else:
            answer = render(request._request, "eventsite/home.html", self._context(request, found))
            answer["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        answer["Vary"] = "Accept"
        answer["Cache-Control"] = "no-store"
        return answer

    def _context(self, request: Request, found: ReadinessAnswer) -> dict[str, Any]:
        return {
            "title": settings.SPECTACULAR_SETTINGS["TITLE"],
            "status": found.status,
            "checks": list(found.checks.items()),
            "traces": () if settings.API_KEYS_REQUIRED else _traces(found),
            "links": LINKS,
            "site": f"{request.scheme}://{request.get_host()}",
            "key": settings.API_KEYS_REQUIRED,
        }


def _traces(found: ReadinessAnswer) -> Sequence[Trace]:
    """What the database knows of the other processes; nothing when it does not answer."""
    if found.checks["database"] != "healthy":
        return ()
    try:
        ages = jobs.ages()
        applied = _applied_seconds_ago()
    except (DatabaseError, InterfaceError):
        return ()
    done = [ages[job] for job in UPKEEP_JOBS if job in ages]
    return (
        _trace(
            "beat, worker of queue upkeep", "last job done", min(done, default=None), UPKEEP_LATE
        ),
        _trace("worker of queue outbox", "last sweep done", ages.get(DRAIN_JOB), DRAIN_LATE),
        _trace("bridge, workers of the handlers", "last event applied", applied, None),
    )


def _applied_seconds_ago() -> float | None:
    """Age of the newest position; a few rows for each handler and partition."""
    [age] = row_of(
        "SELECT extract(epoch FROM clock_timestamp() - max(updated_at))::float"
        " FROM bridge_position WHERE next_offset > start_offset"
    )
    return None if age is None else float(age)


def _trace(name: str, what: str, age: float | None, late: int | None) -> Trace:
    """`late`: seconds after which the age is too high; None: it depends on what others send."""
    if age is None:
        return Trace(name, f"{what}: never yet", late=late is not None)
    return Trace(name, f"{what} {_ago(age)}", late=late is not None and age > late)


def _ago(seconds: float) -> str:
    seconds = max(0, round(seconds))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
