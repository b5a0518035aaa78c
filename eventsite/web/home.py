"""The page at /: what this is, whether the servers answer, where everything is. A browser gets HTML,
every other client JSON. How the processes stand is on the page of operators."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpResponseBase
from django.shortcuts import render
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from outbox.process.health import readiness

__all__ = ["HomeView"]

LINKS = (
    ("/ops/", "Operations", "how everything stands, and what to press; asks for a login"),
    ("/swagger/", "API", "read it and try it"),
    ("/openapi.json", "OpenAPI document", "the same for programs"),
    ("/admin/", "Admin", "orders, events, dead letters, figures; asks for a login"),
    ("/health/ready", "Readiness", "for load balancers"),
    ("/metrics", "Metrics", "of the web processes, for Prometheus"),
)


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
            context = {
                "title": settings.SPECTACULAR_SETTINGS["TITLE"],
                "status": found.status,
                "checks": list(found.checks.items()),
                "links": LINKS,
                "site": f"{request.scheme}://{request.get_host()}",
                "key": settings.API_KEYS_REQUIRED,
            }
            answer = render(request._request, "eventsite/home.html", context)
        answer["Vary"] = "Accept"
        answer["Cache-Control"] = "no-store"
        return answer
