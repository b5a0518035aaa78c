"""Every page of ours, found by its links, tells the browser to load nothing but its own files, and has
nothing inline that it would have to forbid."""

from __future__ import annotations

from collections import deque
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib import admin
from django.contrib.auth.models import User

from devtools.testing.sessions import cookie_of
from devtools.testing.web import Answer, Web
from eventsite.tests.test_admin_in_chromium import fill

STARTS = (
    *("/", "/admin/", "/swagger/", "/ops/", "/ops/journey?id=nothing", "/ops/break-glass"),
    *("/admin/login/", "/admin/password_change/", "/admin/no-such-page/"),
)
HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
# They end the session, or are no pages of ours.
PASSED_OVER = ("/admin/logout/", "/static/", "/metrics", "/health", "/openapi.json")
FORBIDDEN = ("'unsafe-eval'", "'unsafe-hashes'", "http:", "https:", "*")
AT_MOST = 600  # pages


class Page(HTMLParser):
    """What a page has: where it leads, and what of it a policy should forbid."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        executed = tag == "script" and given.get("type", "") in ("", "text/javascript", "module")
        if tag == "style" or (executed and "src" not in given):
            self.inline.append(tag)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name[:2] == "on"]
        for name in ("src", "href"):
            value = given.get(name) or ""
            if tag in ("script", "link", "img") and urlsplit(value).netloc:
                self.inline.append(f"{tag} {value}")


@pytest.fixture
def seen(web: Web, permissions: None) -> dict[str, Answer]:
    """Path -> answer of every page that an operator reaches by links; one of each list's rows."""
    fill()
    cookie = cookie_of(User.objects.create_superuser("operator"))
    answers: dict[str, Answer] = {}
    left = deque(STARTS)
    while left:
        path = left.popleft()
        if path in answers:
            continue
        assert len(answers) < AT_MOST, "Links lead to ever more pages."
        answer = answers[path] = web.get(path, **cookie, **HTML)
        if not _is_page(answer):
            continue
        links = [urljoin(f"http://site{path}", each) for each in _read(answer).links]
        ours = [urlsplit(each) for each in links if urlsplit(each).netloc == "site"]
        for url in ours:
            # An order or a filter of a list is the same page.
            if not url.path.startswith(PASSED_OVER) and "?" not in url.path and not url.query:
                left.append(url.path)
    return answers


def _is_page(answer: Answer) -> bool:
    return answer.header("content-type").startswith("text/html")


def _read(answer: Answer) -> Page:
    page = Page()
    page.feed(answer.body.decode())
    return page


def policy_of(answer: Answer) -> dict[str, str]:
    parts = (each.strip().partition(" ") for each in _policy(answer).split(";") if each.strip())
    return {name: value for name, _, value in parts}


def _policy(answer: Answer) -> str:
    return answer.header("content-security-policy")


def test_every_page_forbids_what_is_not_its_own(seen: dict[str, Answer]) -> None:
    pages = {path: answer for path, answer in seen.items() if _is_page(answer)}
    lists = {
        f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for model in admin.site._registry
    }
    assert lists <= pages.keys()
    assert {"/", "/swagger/", "/ops/", "/admin/login/"} <= pages.keys()
    assert any("/change/" in path for path in pages)
    assert any("/history/" in path for path in pages)
    assert any("/add/" in path for path in pages)
    for path, answer in pages.items():
        policy = policy_of(answer)
        assert policy.get("default-src") == "'none'", path
        assert policy.get("frame-ancestors") == policy.get("base-uri") == "'none'", path
        assert "form-action" in policy, path
        assert "'unsafe-inline'" not in policy.get("script-src", ""), path
        assert not [word for word in _policy(answer).split() if word in FORBIDDEN], path
        if path != "/swagger/":  # Swagger UI writes style attributes
            assert "'unsafe-inline'" not in policy["style-src"], path


def test_no_page_has_anything_inline_or_from_elsewhere(seen: dict[str, Answer]) -> None:
    found = {
        path: inline
        for path, answer in seen.items()
        if _is_page(answer) and (inline := _read(answer).inline)
    }
    assert found == {}


def test_refusals_of_a_page_have_the_policy_too(web: Web) -> None:
    """Of the middleware (CSRF), of the login, of what is not there."""
    refused = web.request("POST", "/admin/login/", b"username=x", {**HTML})
    assert refused.status == 403
    assert policy_of(refused)["default-src"] == "'none'"
    answer = web.get("/ops/", **HTML)
    assert (answer.status, policy_of(answer)["default-src"]) == (302, "'none'")
