"""The page at /: HTML for people, JSON for programs, and no more than health says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from devtools.testing.pipeline import settles
from devtools.testing.processes import free_port
from devtools.testing.web import Answer, Web, assert_error, web_process
from outbox.tests.admin_pages import log_in

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def page(web: Web, **headers: str) -> str:
    answer = web.get("/", Accept=BROWSER, **headers)
    assert answer.status == 200
    assert answer.header("content-type") == "text/html; charset=utf-8"
    return answer.body.decode()


@pytest.fixture(scope="module")
def closed_web(django_db_setup: None) -> Iterator[Web]:
    """A web process that requires keys, as in production, and that has neither Kafka nor Redis."""
    with web_process(
        API_KEYS_REQUIRED="1",
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
        REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
    ) as started:
        yield started


@pytest.mark.parametrize(
    "accept", ["application/json", "*/*", "", "text/html;q=0.1, */*", "image/png"]
)
def test_programs_get_json(refusing_web: Web, accept: str) -> None:
    answer = refusing_web.get("/", **({"Accept": accept} if accept else {}))
    assert answer.status == 200
    assert answer.header("vary") == "Accept"
    assert answer.json["status"] == "ready"
    assert answer.json["checks"] == refusing_web.get("/health/ready").json["checks"]


def test_every_link_of_the_page_and_of_the_json_leads_somewhere(refusing_web: Web) -> None:
    linked = re.findall(r'<a href="([^"]+)"', page(refusing_web))
    assert linked == refusing_web.get("/").json["links"]
    assert linked[0] == "/ops/"
    assert {"/swagger/", "/openapi.json", "/admin/", "/metrics"} <= set(linked)
    for link in linked:
        answer = refusing_web.get(link)
        assert answer.status in {200, 302}, link
        assert link != "/admin/" or answer.header("location").startswith("/admin/login/")


def test_the_lines_to_try_have_the_address_of_the_request(refusing_web: Web) -> None:
    text = page(refusing_web, Host="shop.example:81")
    assert text.count("curl") == 3
    assert text.count("http://shop.example:81/") == 3
    assert "X-API-Key" not in text


def test_it_is_made_of_files_of_this_server_alone(refusing_web: Web) -> None:
    answer = refusing_web.get("/", Accept=BROWSER)
    text, policy = answer.body.decode(), answer.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in text
    assert "style=" not in text
    [style] = re.findall(r'rel="stylesheet" href="([^"]+)"', text)
    assert refusing_web.get(style).header("content-type") == "text/css"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_refused_in_json(refusing_web: Web, method: str) -> None:
    answer = refusing_web.request(method, "/", headers={"Accept": BROWSER})
    assert_error(answer, 405)
    assert answer.header("allow") == "GET, HEAD, OPTIONS"


def test_its_place_in_the_metrics_has_a_name(refusing_web: Web) -> None:
    refusing_web.get("/")
    metrics = refusing_web.get("/metrics").body.decode()
    assert re.search(r'http_requests_total\{method="GET",path="/",status="200"\} ', metrics)


def test_it_names_the_processes_that_run(web: Web) -> None:
    named = re.compile(r"<dt>processes</dt><dd>[^<]*\bweb")
    assert settles(lambda: bool(named.search(page(web))))


def test_where_keys_are_required_it_says_what_health_says_and_no_more(closed_web: Web) -> None:
    """It is open all the same: no key is asked for."""
    text = page(closed_web)
    assert re.findall(r"<dt>(\w+)</dt><dd[^>]*>(\w+)</dd>", text) == [
        ("database", "healthy"),
        ("kafka", "unhealthy"),
        ("redis", "unhealthy"),
    ]
    assert text.count("<dt>") == 3
    assert "degraded" in text
    assert text.count("X-API-Key") == 3
    answer: Answer = closed_web.get("/")
    assert set(answer.json) == {"service", "status", "checks", "links"}


@pytest.mark.django_db
def test_the_admin_leads_back_to_it() -> None:
    assert '<a href="/">View site</a>' in log_in().get("/admin/").content.decode()
