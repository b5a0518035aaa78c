"""The Content-Security-Policy of every page: the browser may load only its own files.

Pages with a policy of their own set it themselves; this is for all others, those of the admin above
all. JSON has none: no browser runs it.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

__all__ = ["CONTENT_SECURITY_POLICY", "ContentSecurityMiddleware"]

HEADER = "Content-Security-Policy"
# Django's admin has no script and no style in its pages.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class ContentSecurityMiddleware:
    """Adds the policy to an HTML answer that has none."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        answer = self._get_response(request)
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            answer.headers.setdefault(HEADER, CONTENT_SECURITY_POLICY)
        return answer
