"""/health and /health/ready of the web process."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from outbox.health import readiness

__all__ = ["alive", "ready"]


@require_safe
def alive(request: HttpRequest) -> JsonResponse:
    """The process answers; nothing else is asked."""
    return JsonResponse({"status": "alive"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """503 without the database; without Kafka or Redis `degraded`, because orders are still
    accepted and nothing is lost. ?strict=1 makes that a 503 too."""
    found = readiness()
    status = found.http_status(strict=request.GET.get("strict") == "1")
    return JsonResponse({"status": found.status, "checks": dict(found.checks)}, status=status)
