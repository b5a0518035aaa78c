"""The admin pages: a key is shown by the answer to its form, and by nothing else."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from apikeys import admin
from apikeys.models import ApiKey, hash_of
from outbox.tests.admin_pages import assert_every_page_is_bounded, fill, log_in

PAGES = "/admin/apikeys/apikey/"
KEY = re.compile(r"ek_[0-9a-f]{8}_[0-9a-f]{64}")
FORM = {"name": "shop", "scopes": ["orders:read"]}
pytestmark = pytest.mark.django_db


@pytest.fixture
def operator() -> Client:
    return log_in()


def shown(text: str) -> str:
    [key] = KEY.findall(text)
    return str(key)


def test_a_key_is_shown_once(operator: Client) -> None:
    answer = operator.post(f"{PAGES}add/", FORM)
    key = shown(answer.content.decode())
    row = ApiKey.objects.get()
    assert bytes(row.sha256) == hash_of(key)
    assert "no-store" in answer["Cache-Control"]
    assert key not in str(answer.cookies)
    for page in (PAGES, f"{PAGES}{row.id}/change/", f"{PAGES}add/", "/admin/"):
        text = operator.get(page).content.decode()
        assert not KEY.search(text)
    assert row.prefix in operator.get(PAGES).content.decode()


@pytest.mark.parametrize("form", [{}, {"name": "a b", "scopes": ["orders:read"]}, {"name": "shop"}])
def test_a_wrong_form_makes_no_key(operator: Client, form: dict[str, object]) -> None:
    answer = operator.post(f"{PAGES}add/", form)
    assert "errorlist" in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_rotate_and_revoke(operator: Client) -> None:
    operator.post(f"{PAGES}add/", FORM)
    old = ApiKey.objects.get()
    chosen = {"_selected_action": str(old.id)}
    new = shown(operator.post(PAGES, chosen | {"action": "rotate"}).content.decode())
    assert bytes(ApiKey.objects.latest("id").sha256) == hash_of(new)
    rotated = ApiKey.objects.get(id=old.id)
    assert (rotated.expires_at is None, rotated.revoked_at) == (False, None)
    operator.post(PAGES, chosen | {"action": "revoke"})
    assert ApiKey.objects.get(id=old.id).revoked_at is not None
    assert ApiKey.objects.filter(revoked_at=None).count() == 1


def test_nothing_is_edited_or_deleted(operator: Client) -> None:
    operator.post(f"{PAGES}add/", FORM)
    row = ApiKey.objects.get()
    assert operator.post(f"{PAGES}{row.id}/change/", {"name": "thief"}).status_code == 403
    assert operator.post(f"{PAGES}{row.id}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.get().name == "shop"


@pytest.mark.usefixtures("permissions")
def test_who_may_only_look_makes_and_revokes_nothing(operator: Client) -> None:
    operator.post(f"{PAGES}add/", FORM)
    row = ApiKey.objects.get()
    onlooker = User.objects.create_user("onlooker", is_staff=True)
    onlooker.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client = Client()
    client.force_login(onlooker)
    assert client.get(PAGES).status_code == 200
    assert client.post(f"{PAGES}add/", FORM | {"name": "b"}).status_code == 403
    for action in ("rotate", "revoke"):
        client.post(PAGES, {"action": action, "_selected_action": str(row.id)})
    row.refresh_from_db()
    assert (row.revoked_at, row.expires_at, ApiKey.objects.count()) == (None, None, 1)


def test_a_key_is_found_by_prefix_and_by_name(operator: Client) -> None:
    for name in ("shop", "other"):
        operator.post(f"{PAGES}add/", FORM | {"name": name})
    shop, other = ApiKey.objects.get(name="shop"), ApiKey.objects.get(name="other")
    for text in (shop.prefix, "shop"):
        seen = operator.get(f"{PAGES}?q={text}").content.decode()
        assert (shop.prefix in seen, other.prefix in seen) == (True, False)
    assert "Nothing here has the id “sho”." in operator.get(f"{PAGES}?q=sho").content.decode()


def test_keys_that_were_chosen_and_not_revoked_are_told(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "REVOKED_AT_ONCE", 2)
    for number in range(3):
        operator.post(f"{PAGES}add/", FORM | {"name": f"n{number}"})
    chosen = {
        "_selected_action": [str(row.pk) for row in ApiKey.objects.all()],
        "action": "revoke",
    }
    text = operator.post(PAGES, chosen, follow=True).content.decode()
    assert "1 of the selected keys are NOT revoked" in text
    assert ApiKey.objects.filter(revoked_at=None).count() == 1
    text = operator.post(PAGES, chosen, follow=True).content.decode()
    assert "NOT revoked" not in text
    assert not ApiKey.objects.filter(revoked_at=None).exists()


def test_pages_are_bounded(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(
        monkeypatch,
        "api_keys",
        "INSERT INTO api_keys (name, prefix, sha256, scopes) SELECT 'n' || i,"
        " 'ek_' || lpad(to_hex(i), 8, '0'), sha256(int4send(i)), '{orders:read}'"
        " FROM generate_series(1, 20000) i",
    )
    last = ApiKey.objects.latest("id").id
    assert_every_page_is_bounded(
        operator, [PAGES, f"{PAGES}?p=3", f"{PAGES}?q=n77", f"{PAGES}{last}/change/"]
    )
