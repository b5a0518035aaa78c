"""The routing table against the URL configuration: none of them says what the other does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, resolve

from eventsite.web.gateway.routes import UNKNOWN, find_path, scope_for

PATHS = settings.WIRING.paths
SAMPLES = {
    "str": str(uuid4()),
    "path": "a/b.css",
    "text": "ada",
    "int": "7",
    "uuid": str(uuid4()),
    "slug": "a-b",
}


def patterns(resolver: Any = None, before: str = "") -> Iterator[str]:
    """Every pattern of the URL configuration, whole."""
    for each in (resolver or get_resolver()).url_patterns:
        if isinstance(each, URLResolver):
            yield from patterns(each, before + str(each.pattern))
        else:
            assert isinstance(each, URLPattern)
            yield before + str(each.pattern)


def sample(pattern: str) -> str:
    """A path of a pattern."""
    pattern = re.sub(r"<(?:(\w+):)?\w+>", lambda found: SAMPLES[found[1] or "str"], pattern)
    pattern = re.sub(r"\(\?P<\w+>[^)]*\)", "a", pattern)
    return "/" + re.sub(r"[\^$]|\\Z", "", pattern)


def test_every_url_is_in_the_table() -> None:
    every = list(patterns())
    assert {"orders", "orders/<str:order_id>/pay", "metrics"} <= set(every)
    assert len(every) > 30  # the admin's too
    unlisted = [each for each in every if find_path(sample(each)) is UNKNOWN]
    assert unlisted == [], "declare these in the wiring.py of their app"


@pytest.mark.parametrize("route", PATHS, ids=lambda route: route.pattern)
def test_every_line_of_the_table_is_a_url(route: Any) -> None:
    path = sample(route.pattern)
    assert find_path(path) is route
    served = resolve(path).route
    if "<path:" in route.pattern:
        assert served.lstrip("^").startswith(route.pattern.partition("<")[0])
    else:
        assert served == route.pattern


@pytest.mark.parametrize(
    "path",
    ["", "//", "/orders/", "/orders/a/", "/orders/a/pay/", "/orders/a/b/c", "/Orders", "//orders",
     "/healthy", "/health/", "/metrics/x", "/adminx", "/analytics", "orders", "/orders\n"],
)  # fmt: skip
def test_paths_that_nobody_serves(path: str) -> None:
    assert find_path(path) is UNKNOWN
    with pytest.raises(Resolver404):
        resolve(path)


def test_no_label_is_empty() -> None:
    """Prometheus takes an empty label for one that is not there."""
    labels = {route.pattern: route.label for route in PATHS}
    assert labels.pop("") == "/"
    assert all(pattern == label for pattern, label in labels.items())


def test_scopes() -> None:
    one = find_path("/orders/x")
    assert [scope_for(one, method) for method in ("GET", "HEAD", "OPTIONS", "POST", "BREW")] == [
        "orders:read", "orders:read", "orders:read", "orders:write", "orders:write",
    ]  # fmt: skip
    assert scope_for(find_path("/analytics/summary"), "POST") == "analytics:read"
    assert scope_for(UNKNOWN, "POST") == ""


def test_every_scope_of_the_table_can_be_given_and_the_other_way_round() -> None:
    asked = {scope for route in PATHS for scope in (route.read, route.write) if scope}
    granted = {scope for app in settings.WIRING.web for scope in app.grants}
    assert granted.isdisjoint(asked)
    assert asked | granted == set(settings.API_SCOPES)


def test_what_is_open() -> None:
    assert {route.pattern for route in PATHS if not route.keyed} == {
        "", "health", "health/ready", "metrics", "openapi.json", "swagger", "swagger/", "admin", "admin/<path:page>", "static/<path:path>",
        "ops", "ops/", "ops/live", "ops/status.json", "ops/journey", "ops/break-glass",
        "ops/charts", "ops/act/<str:name>", "ops/done/<str:entry_id>", "ops/done/<str:entry_id>/live",
        "ops/letters", "ops/letters/<str:letter_id>", "ops/relay-letters", "ops/relay-letters/<str:letter_id>", "ops/lanes",
    }  # fmt: skip
