"""/ops/ws: who is let in, what is pushed, and that many cost what one costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.web import Web
from operations.tests.people import cookie_of, staff
from outbox.handlers.pause import pause_handler, register_handlers

HANDLER = "record_sales"
MANY = 5


@pytest.fixture(autouse=True)
def _permissions(web: Web, permissions: None) -> None:
    register_handlers([HANDLER])


@contextmanager
def live(
    web: Web, headers: dict[str, str], *, origin: str | None = None
) -> Iterator[ClientConnection]:
    host = f"127.0.0.1:{web.port}"
    named = {"Origin": origin if origin is not None else f"http://{host}"}
    with connect(
        f"ws://{host}/ops/ws",
        additional_headers={**headers, **(named if origin != "" else {})},
        proxy=None,
        open_timeout=PATIENCE,
        max_size=None,
    ) as client:
        yield client


def heard(client: ClientConnection) -> dict[str, str]:
    parts: dict[str, str] = json.loads(client.recv(timeout=PATIENCE))
    return parts


def refusal(web: Web, headers: dict[str, str], *, origin: str | None = None) -> int:
    with pytest.raises(InvalidStatus) as refused, live(web, headers, origin=origin):
        pass
    return refused.value.response.status_code


def moment(parts: dict[str, str]) -> str:
    """Empty as long as no server has answered."""
    return "".join(re.findall(r'<time datetime="([^"]+)"', parts["now"]))


def closed_with(client: ClientConnection) -> int | None:
    try:
        while True:
            heard(client)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def test_the_parts_of_the_page_come_again_and_again(web: Web) -> None:
    with live(web, cookie_of(staff("viewer"))) as client:
        first = heard(client)
        assert set(first) == {"now", "charted", "rest"}
        assert "read " in first["charted"]
        assert "The way of an event" in first["now"]
        assert "Time left" in first["rest"]
        assert settles(lambda: moment(heard(client)) != moment(first))


def test_what_changes_is_in_it_soon(web: Web) -> None:
    with live(web, cookie_of(staff("viewer"))) as client:
        heard(client)
        pause_handler(HANDLER, reason="a look", by="ada")
        assert settles(lambda: "pause of handler record_sales" in heard(client)["rest"])


def test_each_sees_the_buttons_that_are_his(web: Web) -> None:
    operator = staff("operator", "outbox.change_handlercontrol")
    with (
        live(web, cookie_of(operator)) as his,
        live(web, cookie_of(staff("viewer"))) as hers,
    ):
        assert settles(lambda: "/ops/act/" in heard(his)["now"])
        for _ in range(3):
            assert "/ops/act/" not in heard(hers)["now"]


def test_nobody_else_is_let_in(web: Web) -> None:
    assert refusal(web, {}) == 401
    assert refusal(web, {"Cookie": "sessionid=nonsense"}) == 401
    assert refusal(web, cookie_of(User.objects.create_user("customer"))) == 403


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://127.0.0.1:1", "ftp://127.0.0.1"]
)
def test_a_page_from_elsewhere_does_not_open_it_with_our_cookie(web: Web, origin: str) -> None:
    assert refusal(web, cookie_of(staff("viewer")), origin=origin) == 403


def test_who_leaves_is_cut_off(web: Web) -> None:
    user = staff("viewer")
    headers = cookie_of(user)
    with live(web, headers) as client:
        heard(client)
        user.is_staff = False
        user.save()
        assert closed_with(client) == 1008


def test_who_logs_out_is_cut_off(web: Web) -> None:
    with live(web, cookie_of(staff("viewer"))) as client:
        heard(client)
        Session.objects.all().delete()
        assert closed_with(client) == 1008


def test_a_message_is_not_taken(web: Web) -> None:
    with live(web, cookie_of(staff("viewer"))) as client:
        heard(client)
        client.send("hello")
        assert closed_with(client) == 1003


def test_many_are_shown_what_one_is_shown(web: Web) -> None:
    """The same snapshot, to the millisecond: it is not made for each."""
    headers = cookie_of(staff("viewer"))
    with ExitStack() as sockets:
        *others, last = [sockets.enter_context(live(web, headers)) for _ in range(MANY)]
        wanted = moment(heard(last))
        for client in others:
            seen = moment(heard(client))
            while seen < wanted:
                seen = moment(heard(client))
            assert seen == wanted
