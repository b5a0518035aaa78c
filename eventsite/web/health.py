"""/health, /health/ready and /metrics of the web process."""

from __future__ import annotations

from django.http import HttpResponse
from django_prometheus.exports import ExportToDjangoView
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from eventsite.web import openapi
from outbox.process.health import readiness
from restapi.answers import json_answer
from restapi.errors import RETRY_AFTER_SECONDS
from restapi.hot_path import HotConstant

__all__ = ["ALIVE", "alive", "metrics", "ready"]

_ALIVE = {"status": "alive"}


@openapi.alive
@api_view(["GET", "HEAD"])
def alive(request: Request) -> Response:
    """The process answers; nothing else is asked."""
    return Response(_ALIVE)


ALIVE = HotConstant(path="/health", route="health", answer=json_answer(200, _ALIVE))


@openapi.ready
@api_view(["GET", "HEAD"])
def ready(request: Request) -> Response:
    """503 without the database; without Kafka or Redis `degraded`, because orders are still
    accepted and nothing is lost. ?strict=1 makes that a 503 too."""
    found = readiness()
    status = found.http_status(strict=request.query_params.get("strict") == "1")
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    body = {"status": found.status, "checks": dict(found.checks)}
    return Response(body, status=status, headers=headers)


@openapi.metrics
@api_view(["GET", "HEAD"])
def metrics(request: Request) -> HttpResponse:
    """Prometheus text of all the processes that share this one's metrics directory."""
    answer: HttpResponse = ExportToDjangoView(request._request)
    return answer
