"""The API's document: generated whole, told as it is, and a page that needs no other server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from django.core.management import call_command
from django.urls import get_resolver
from jsonschema import Draft202012Validator

from devtools.testing.web import Web
from eventsite.web.openapi import document

MOVED = {"200", "400", "404", "409", "413", "415", "422"}
ACCEPTED = {"201", "400", "409", "413", "415", "422"}
OPERATIONS = {
    ("get", "/orders"): {"200", "400"},
    ("post", "/orders"): {"200", "201", "400", "409", "413", "415", "422"},
    ("get", "/orders/{order_id}"): {"200", "404"},
    ("post", "/orders/{order_id}/pay"): MOVED,
    ("post", "/orders/{order_id}/ship"): MOVED,
    ("post", "/orders/{order_id}/cancel"): MOVED,
    ("get", "/posts"): {"200", "400"},
    ("post", "/posts"): {"202", "400", "409", "413", "415", "422"},
    ("get", "/posts/{post_id}"): {"200", "404"},
    ("delete", "/posts/{post_id}"): {"200", "400", "404", "409", "422"},
    ("post", "/follow"): {"200", "400", "409", "413", "415", "422"},
    ("delete", "/follow"): {"200", "400", "409", "413", "415", "422"},
    ("get", "/feeds/{user_id}"): {"200", "400"},
    ("get", "/users/{user_id}/following"): {"200", "400"},
    ("get", "/users/{user_id}/followers"): {"200", "400"},
    ("get", "/analytics/summary"): {"200"},
    ("get", "/analytics/metrics"): {"200", "400"},
    ("get", "/analytics/top-products"): {"200", "400"},
    ("get", "/api/v1/notifications"): {"200", "400"},
    ("post", "/api/v1/notifications"): ACCEPTED,
    ("post", "/api/v1/notifications/batch"): ACCEPTED,
    ("get", "/api/v1/notifications/{notification_id}"): {"200", "404"},
    ("get", "/api/v1/notifications/{notification_id}/attempts"): {"200", "404"},
    ("patch", "/api/v1/notifications/{notification_id}/cancel"): MOVED,
    ("post", "/api/v1/notifications/{notification_id}/retry"): MOVED,
    ("get", "/api/v1/batches/{batch_id}"): {"200", "404"},
    ("patch", "/api/v1/batches/{batch_id}/cancel"): MOVED,
    ("get", "/api/v1/templates"): {"200"},
    ("post", "/api/v1/templates"): ACCEPTED,
    ("get", "/api/v1/templates/{template_id}"): {"200", "404"},
    ("put", "/api/v1/templates/{template_id}"): MOVED,
    ("delete", "/api/v1/templates/{template_id}"): {"204", "404"},
    ("post", "/api/v1/templates/{template_id}/preview"): {"200", "400", "404", "413", "415"},
    ("get", "/api/v1/metrics"): {"200"},
    ("get", "/health"): {"200"},
    ("get", "/health/ready"): {"200", "503"},
    ("get", "/metrics"): {"200"},
}
OF_OPERATORS = ("/health", "/health/ready", "/metrics")
IDS = {"X-Request-ID", "X-Correlation-ID", "traceparent"}
OWN = {("get", "/feeds/{user_id}", "200"): {"X-Cache"}}
SPECIAL = {"405": {"Allow"}, "429": {"Retry-After"}, "503": {"Retry-After"}}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_it_is_generated_without_warnings_and_valid(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", "--fail-on-warn", "--validate")
    assert capsys.readouterr().out.startswith("openapi: 3.1.0\n")


def test_it_is_served(refusing_web: Web) -> None:
    answer = refusing_web.get("/openapi.json")
    assert answer.status == 200
    assert json.loads(answer.body) == document()
    assert answer.header("content-type") == "application/json"


def test_every_operation_tells_its_answers() -> None:
    told = {(method, path): set(operation["responses"]) for method, path, operation in operations()}
    everywhere = {"401", "403", "405", "429", "503"}
    assert told == {
        (method, path): codes | ({"405"} if path in OF_OPERATORS else everywhere)
        for (method, path), codes in OPERATIONS.items()
    }


def test_every_path_of_the_api_is_in_it() -> None:
    """What is not: pages for people, and the document itself."""
    routes = {route for route in _routes(get_resolver().url_patterns) if route[:1] not in {"^", ""}}
    pages = {
        route for route in routes if re.match(r"admin|ops|swagger|static|openapi\.json$", route)
    }
    assert {"/" + re.sub(r"<\w+:(\w+)>", r"{\1}", route) for route in routes - pages} == set(
        document()["paths"]
    )


def _routes(patterns: Any, before: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _routes(pattern.url_patterns, route)
        else:
            yield route


def test_every_answer_tells_its_headers() -> None:
    for method, path, operation in operations():
        for code, answer in operation["responses"].items():
            expected = IDS | SPECIAL.get(code, set()) | OWN.get((method, path, code), set())
            headers = answer["headers"]
            required = {name for name, header in headers.items() if header.get("required")}
            assert required == expected, (method, path, code)
    orders = document()["paths"]["/orders"]
    assert "Link" in orders["get"]["responses"]["200"]["headers"]
    for code in ("200", "201"):
        assert "Idempotent-Replayed" in orders["post"]["responses"][code]["headers"]
    [key] = orders["post"]["parameters"]
    assert (key["name"], key["in"], "required" in key) == ("Idempotency-Key", "header", False)


def test_who_is_unfollowed_stands_in_the_query_or_in_the_body() -> None:
    operation = document()["paths"]["/follow"]["delete"]
    queried = [each for each in operation["parameters"] if each["in"] == "query"]
    assert {each["name"] for each in queried} == {"follower_id", "followee_id"}
    assert not any(each.get("required") for each in queried)
    assert "required" not in operation["requestBody"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert check(schema, {"follower_id": "grace", "followee_id": "ada"}) == 0
    assert check(schema, {}) == 0
    assert check(schema, {"follower_id": "grace"}) > 0


def test_both_bodies_are_one_of_two() -> None:
    body = document()["paths"]["/orders"]["post"]["requestBody"]
    assert body["required"] is True
    [kind] = body["content"]
    assert kind == "application/json"
    assert check(body["content"][kind]["schema"], {"user_id": "u1", "amount": 42.5}) == 0
    items = [{"productId": "p1", "quantity": 2, "price": 10}]
    assert check(body["content"][kind]["schema"], {"customerId": "c", "items": items}) == 0
    for refused in (
        {},
        {"user_id": "u1"},
        {"user_id": "u1", "amount": 0},
        {"user_id": "u1", "amount": 42.505},
        {"user_id": "u1", "amount": "42.5"},
        {"user_id": " ", "amount": 1},
        {"user_id": "u\0", "amount": 1},
        {"user_id": "u1", "amount": 1, "items": items},
        {"customerId": "c", "items": []},
        {"customerId": "c", "items": items * 101},
    ):
        assert check(body["content"][kind]["schema"], refused) > 0, refused


def test_every_operation_has_examples_that_are_true() -> None:
    for method, path, operation in operations():
        answers = operation["responses"].items()
        contents = [answer["content"] for code, answer in answers if code != "204"]
        if "requestBody" in operation:
            contents.append(operation["requestBody"]["content"])
        for content in contents:
            for kind, media in content.items():
                assert kind == "text/plain" or media["examples"], (method, path)
                for example in media.get("examples", {}).values():
                    assert check(media["schema"], example["value"]) == 0, (method, path, example)


def check(schema: dict[str, Any], value: Any) -> int:
    """How many complaints there are about a value."""
    whole = schema | {"components": document()["components"]}
    return len(list(Draft202012Validator(whole).iter_errors(value)))


def test_keys_are_asked_for_where_there_is_something_to_protect() -> None:
    schemes = document()["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
    assert schemes["apiKey"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    for _, path, operation in operations():
        expected: Any = None if path in OF_OPERATORS else [{}, {"bearer": []}, {"apiKey": []}]
        assert operation.get("security") == expected, path


def test_the_page_is_whole_without_any_other_server(refusing_web: Web) -> None:
    page = refusing_web.get("/swagger/")
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    assert "<script>" not in text
    assert "style=" not in text
    assets = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(assets) == 4
    for asset in assets:
        assert asset.startswith("/static/")
        answer = refusing_web.get(unquote(asset))
        assert (answer.status, bool(answer.body)) == (200, True), asset
    assert b'url: "/openapi.json"' in refusing_web.get("/static/eventsite/swagger.js").body
    policy = page.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


def test_the_page_is_found_without_its_slash(refusing_web: Web) -> None:
    answer = refusing_web.get("/swagger")
    assert (answer.status, answer.header("location")) == (302, "/swagger/")
