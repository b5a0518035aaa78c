"""Who looks is remembered for as long as it helps, and never with a permission that nobody could ask for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.db import InterfaceError
from django.http import HttpRequest
from django.test import RequestFactory

from operations import viewers
from operations.tests.people import cookie_of, staff
from operations.viewers import MayNot, NotKnown, Unasked, Viewer, viewer_of

pytestmark = pytest.mark.django_db
HANDLERS = "outbox.change_handlercontrol"


@pytest.fixture(autouse=True)
def _nobody_known() -> Iterator[None]:
    viewers._known.clear()
    yield
    viewers._known.clear()


@pytest.fixture
def ada(permissions: None) -> User:
    return staff("ada", HANDLERS)


def request_of(user: User) -> HttpRequest:
    cookie = cookie_of(user)["Cookie"]
    request = RequestFactory().get("/ops/", headers={"Cookie": cookie})
    request.session = SessionStore(cookie.partition("=")[2])
    return request


def postgresql_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(request: HttpRequest) -> Viewer:
        raise InterfaceError

    monkeypatch.setattr(viewers, "_ask", unavailable)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)


def test_without_postgresql_who_is_known_looks_and_changes_nothing(
    ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(ada)
    assert viewer_of(request) == Viewer("ada", frozenset({HANDLERS}))
    postgresql_is_unavailable(monkeypatch)
    later(monkeypatch, viewers.ASKED_AGAIN_SECONDS + 1)
    assert viewer_of(request) == Viewer("ada")
    with pytest.raises(Unasked):
        viewer_of(request, anew=True)


def test_nobody_is_known_for_ever(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_of(ada)
    viewer_of(request)
    postgresql_is_unavailable(monkeypatch)
    later(monkeypatch, viewers.KNOWN_SECONDS + 1)
    with pytest.raises(Unasked):
        viewer_of(request)


def test_who_may_no_longer_look_is_forgotten(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_of(ada)
    viewer_of(request)
    User.objects.update(is_staff=False)
    with pytest.raises(MayNot):
        viewer_of(request, anew=True)
    postgresql_is_unavailable(monkeypatch)
    with pytest.raises(Unasked):
        viewer_of(request)


def with_token(token: str) -> HttpRequest:
    return RequestFactory().get("/ops/", headers={"Authorization": f"Bearer {token}"})


def with_cookie(text: str) -> HttpRequest:
    request = RequestFactory().get("/ops/")
    request.COOKIES[viewers.COOKIE] = text
    return request


def test_where_no_token_is_set_none_opens_the_page(settings: Any) -> None:
    settings.OPS_TOKEN = ""
    for request in (with_token(""), with_cookie(viewers.cookie_for_token())):
        with pytest.raises(NotKnown):
            viewer_of(request)


def test_the_cookie_of_the_token_ends_after_an_hour_or_with_the_token(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OPS_TOKEN = "a" * 32
    cookie = viewers.cookie_for_token()
    assert viewer_of(with_cookie(cookie)) == Viewer("break-glass token")
    settings.OPS_TOKEN = "b" * 32
    with pytest.raises(NotKnown):
        viewer_of(with_cookie(cookie))
    settings.OPS_TOKEN = "a" * 32
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + viewers.COOKIE_SECONDS + 1)
    with pytest.raises(NotKnown):
        viewer_of(with_cookie(cookie))
