"""The page over real HTTP: who may see what, what it says, and where its buttons lead."""

from __future__ import annotations

import re
import time

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from devtools.testing.pipeline import settles
from devtools.testing.web import Web, assert_error
from operations import viewers
from operations.tests.conftest import TOKEN
from operations.tests.forms import post
from operations.tests.people import cookie_of, staff
from outbox.handlers.pause import pause_handler, register_handlers

PAGES = ("/ops/", "/ops/journey", "/ops/letters", "/ops/lanes", "/ops/done/1", "/ops/letters/1")
SCRIPTS = ("/ops/live", "/ops/status.json", "/ops/charts", "/ops/done/1/live")
HANDLER = "record_sales"


@pytest.fixture(autouse=True)
def _permissions(web: Web, permissions: None) -> None:
    """Of all models, which only these tests give to people."""


def status_of(web: Web, headers: dict[str, str]) -> dict[str, object]:
    answer = web.get("/ops/status.json", **headers)
    assert answer.status == 200, answer.body
    body: dict[str, object] = answer.json
    return body


def test_who_is_not_logged_in_is_sent_to_the_login_or_told(web: Web) -> None:
    for path in PAGES:
        answer = web.get(f"{path}?id=1")
        assert answer.status == 302
        assert answer.header("location") == f"/admin/login/?next={path}%3Fid%3D1"
    for path in SCRIPTS:
        assert_error(web.get(path), 401)
    assert web.get("/ops").header("location") == "/ops/"


def test_who_is_not_of_the_staff_sees_nothing(web: Web) -> None:
    headers = cookie_of(User.objects.create_user("customer"))
    for path in PAGES:
        answer = web.get(path, **headers)
        assert answer.status == 403
        assert b"waits" not in answer.body
    for path in SCRIPTS:
        assert_error(web.get(path, **headers), 403)


def test_who_leaves_the_staff_sees_nothing_seconds_later(web: Web) -> None:
    user = staff("viewer")
    headers = cookie_of(user)
    assert web.get("/ops/", **headers).status == 200
    user.is_staff = False
    user.save()
    assert settles(lambda: web.get("/ops/", **headers).status == 403)


def test_a_viewer_reads_and_presses_nothing(web: Web) -> None:
    register_handlers([HANDLER])
    answer = web.get("/ops/", **cookie_of(staff("viewer")))
    text = answer.body.decode()
    assert answer.status == 200
    assert "/ops/act/" not in text
    assert "/ops/lanes" not in text
    assert answer.header("cache-control") == "no-store"


def test_an_operator_s_button_leads_to_a_preview(web: Web) -> None:
    register_handlers([HANDLER])
    headers = cookie_of(staff("operator", "outbox.change_handlercontrol"))

    def buttons() -> list[str]:
        text = web.get("/ops/", **headers).body.decode()
        return re.findall(r'href="([^"]+)" aria-label="pause record_sales"', text)

    assert settles(
        lambda: len(buttons()) == 1
    )  # the page may have looked before there was a handler
    [path] = buttons()
    asked = web.get(path, **headers)
    assert asked.status == 200
    assert b"Yes, pause" in asked.body


def test_a_paused_handler_is_amber_and_says_who_and_why(web: Web, topics: None) -> None:
    call_command("sync_routes", verbosity=0)
    pause_handler(HANDLER, reason="a <b>bad</b> release", by="ada")
    headers = cookie_of(staff("viewer"))

    def hop() -> dict[str, object]:
        hops = status_of(web, headers)["hops"]
        assert isinstance(hops, list)
        return next((each for each in hops if each["name"] == HANDLER), {})

    assert settles(lambda: bool(hop().get("notes")))
    assert hop()["state"] == "amber"
    assert hop()["notes"] == ["paused by ada: a <b>bad</b> release"]
    text = web.get("/ops/", **headers).body.decode()
    assert "a &lt;b&gt;bad&lt;/b&gt; release" in text
    assert "<b>bad" not in text
    assert "pause of handler record_sales" in text


def test_the_part_that_is_renewed_is_the_page_s(web: Web) -> None:
    headers = cookie_of(staff("viewer"))
    part = web.get("/ops/live", **headers)
    assert part.status == 200
    assert part.header("content-type").startswith("text/html")
    assert b"<html" not in part.body
    assert b"The way of an event" in part.body


def test_the_token_opens_the_page_to_read(web: Web) -> None:
    glass = web.get("/ops/break-glass")
    assert glass.status == 200
    wrong = post(web, glass, "/ops/break-glass", "token=nonsense", {})
    assert (wrong.status, wrong.header("set-cookie").count("ops_break_glass")) == (403, 0)
    right = post(web, glass, "/ops/break-glass", f"token={TOKEN}", {})
    assert (right.status, right.header("location")) == (302, "/ops/")
    [cookie] = re.findall(r"ops_break_glass=[^;]+", right.header("set-cookie"))
    assert "HttpOnly" in right.header("set-cookie")
    assert "SameSite=Strict" in right.header("set-cookie")
    page = web.get("/ops/", Cookie=cookie)
    assert page.status == 200
    assert b"/ops/act/" not in page.body
    assert web.get("/ops/journey?id=1", Cookie=cookie).status == 403
    assert web.get("/ops/", Cookie=f"{cookie[:-2]}xx").status == 302


def test_scripts_send_the_token(web: Web) -> None:
    assert status_of(web, {"Authorization": f"Bearer {TOKEN}"})["state"] in {
        "green",
        "grey",
        "amber",
        "red",
    }
    assert_error(web.get("/ops/status.json", Authorization=f"Bearer {TOKEN}x"), 401)


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS])
def test_other_methods_are_refused(web: Web, path: str) -> None:
    assert_error(web.post(path, {}), 405)


def test_it_is_made_of_files_of_this_server_alone(web: Web) -> None:
    answer = web.get("/ops/", **cookie_of(staff("viewer")))
    text, policy = answer.body.decode(), answer.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "style=" not in text
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', text)
    assert len(files) == 2
    for file in files:
        assert web.get(file).status == 200


def test_many_who_look_cost_one_look(web: Web) -> None:
    """All of them are shown the same snapshot: a second is asked for once."""
    headers = cookie_of(staff("viewer"))
    status_of(web, headers)
    begun = time.monotonic()
    seen = {status_of(web, headers)["at"] for _ in range(20)}
    assert len(seen) <= 2 + (time.monotonic() - begun)


def test_a_superuser_has_every_permission_whatever_the_table_says() -> None:
    every = viewers._every_permission()
    assert {"outbox.view_outboxevent", "outbox.change_deadletter", "orders.view_order"} <= every
