"""/openapi.json and /swagger/: the API's document, and a page to read and try it."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any, cast

from django.conf import settings
from django.http import HttpResponseBase
from django.views.generic import TemplateView
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from restapi.openapi import errors
from restapi.operations import answer

__all__ = ["DocumentView", "SwaggerView", "alive", "document", "metrics", "ready", "with_tags"]

# All that the page runs and shows comes from this server, scripts from files alone. Swagger UI
# writes style attributes and has its icons in its style sheet.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, made once a process."""
    made = SchemaGenerator().get_schema(request=None, public=True)
    return cast(dict[str, Any], json.loads(OpenApiJsonRenderer().render(made)))


def with_tags(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The headings, in the order of the installed apps."""
    return result | {"tags": [{"name": app.tag} for app in settings.WIRING.web if app.tag]}


@extend_schema(exclude=True)
class DocumentView(APIView):
    def get(self, request: Request) -> Response:
        return Response(document())


class SwaggerView(TemplateView):
    template_name = "eventsite/swagger.html"

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(*args, **kwargs)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


# The operations of eventsite/web/health.py


class Alive(serializers.Serializer[object]):
    """The process answers."""

    status = serializers.ChoiceField(["alive"])


class Checks(serializers.Serializer[object]):
    """The servers behind the process."""

    database = serializers.ChoiceField(["healthy", "unhealthy"])
    kafka = serializers.ChoiceField(["healthy", "unhealthy"])
    redis = serializers.ChoiceField(["healthy", "unhealthy"])


class ReadinessSerializer(serializers.Serializer[object]):
    """`not ready` without the database, `degraded` without Kafka or Redis."""

    status = serializers.ChoiceField(["ready", "degraded", "not ready"])
    checks = Checks()


NO_DATABASE = {"database": "unhealthy", "kafka": "healthy", "redis": "healthy"}
ALL_WELL = NO_DATABASE | {"database": "healthy"}
_OPEN: dict[int | tuple[int, str], Any] = {405: errors()[405]}

_declared = partial(extend_schema, tags=["operations"], description="", auth=[])
alive = _declared(
    operation_id="getHealth",
    summary="Is the process alive",
    responses={200: answer(Alive, {"status": "alive"}, name="alive"), **_OPEN},
)
ready = _declared(
    operation_id="getReadiness",
    summary="Can it take requests",
    parameters=[OpenApiParameter("strict", str, description="`1`: degraded is a 503 too.")],
    responses={
        200: answer(
            ReadinessSerializer,
            {"status": "ready", "checks": ALL_WELL},
            "Orders are accepted and nothing is lost.",
            name="ready",
        ),
        503: answer(
            ReadinessSerializer,
            {"status": "not ready", "checks": NO_DATABASE},
            "Not ready, or with `strict=1` degraded.",
            name="not ready",
        ),
        **_OPEN,
    },
)
metrics = _declared(
    operation_id="getMetrics",
    summary="Prometheus metrics",
    responses={(200, "text/plain"): str, **_OPEN},
)
