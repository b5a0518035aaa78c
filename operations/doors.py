"""Access to the page: decorators that check who asks; no answer is stored anywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import cache_control

from operations.action import NoSuch, NotNow
from operations.relay_letters import Unavailable
from operations.viewers import MayNot, NotKnown, Unasked, viewer_of
from restapi.answers import json_answer, to_response
from restapi.errors import RETRY_AFTER_SECONDS, reads_only

__all__ = ["glass", "of_actors", "of_scripts", "of_staff", "unstored"]

unstored = cache_control(no_store=True)
_METHODS = ("GET", "HEAD", "POST")
View = Callable[..., HttpResponse]


def of_staff(view: View) -> Callable[..., Any]:
    """For a page. A visitor without a session is redirected to the login of the admin; MayNot, NoSuch, NotNow and
    Unavailable are pages with their messages."""
    return reads_only(_page(view))


def of_actors(view: View) -> Callable[..., Any]:
    """For a page with a form. PostgreSQL is asked again who sends it, and Django's CSRF check is on."""
    page = _page(view)

    @unstored
    @wraps(view)
    def asked(request: HttpRequest, *args: Any, **more: Any) -> HttpResponse:
        if request.method not in _METHODS:
            answer = _error(405, f'Method "{request.method}" not allowed.')
            answer["Allow"] = ", ".join(_METHODS)
            return answer
        return page(request, *args, **more)

    return asked


def _page(view: View) -> View:
    @unstored
    @wraps(view)
    def opened(request: HttpRequest, *args: Any, **more: Any) -> HttpResponse:
        acts = request.method == "POST"
        try:
            answer = view(request, viewer_of(request, anew=acts), *args, **more)
        except NotKnown:
            back = reverse("ops") if acts else request.get_full_path()
            answer = HttpResponseRedirect(f"{reverse('admin:login')}?next={quote(back)}")
        except MayNot as error:
            answer = _refusal(request, 403, str(error))
        except NoSuch as error:
            answer = _refusal(request, 404, str(error))
        except (NotNow, Unavailable) as error:
            answer = _refusal(request, 503, str(error))
        except Unasked:
            answer = glass(request, status=503)
        return answer

    return opened


def of_scripts(view: View) -> Callable[..., Any]:
    """For JSON or a part of the page: no redirects, and errors in the format of the API."""

    @unstored
    @wraps(view)
    def opened(request: HttpRequest, *args: Any, **more: Any) -> HttpResponse:
        try:
            answer = view(request, viewer_of(request), *args, **more)
        except NotKnown:
            answer = _error(
                401,
                "Log in at /admin/, or send the operator token: Authorization: Bearer <OPS_TOKEN>.",
            )
        except MayNot as error:
            answer = _error(403, str(error))
        except Unasked:
            answer = _error(
                503,
                "PostgreSQL is unavailable, so your login cannot be checked; send the operator token: Authorization: Bearer <OPS_TOKEN>.",
            )
            answer["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return answer

    return reads_only(opened)


def _error(status: int, message: str) -> HttpResponse:
    return to_response(json_answer(status, {"error": message, "details": []}))


def _refusal(request: HttpRequest, status: int, message: str) -> HttpResponse:
    context = {"message": message, "login": status == 403}
    return render(request, "operations/refused.html", context, status=status)


def glass(request: HttpRequest, *, status: int, wrong: bool = False) -> HttpResponse:
    """The page that asks for the token of operators."""
    context = {"wrong": wrong, "is_set": bool(settings.OPS_TOKEN), "away": status == 503}
    return render(request, "operations/glass.html", context, status=status)
