"""The routing table: every path there is, who may call it, and what the gateway does around it.

A path that is not in here still reaches Django, but like one that needs a key; a test compares the
table with the URL configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["METRICS", "ROUTES", "UNKNOWN", "Route", "find_route", "scope_for"]

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the table.

    pattern  as Django writes it, without the first slash: label of metrics and log
    keyed    whether API keys are looked at; required or not is a setting
    read     scope of GET, HEAD and OPTIONS; "": any key will do
    write    scope of every other method; "": as `read` (the answer is a 405 then)
    limited  whether it counts towards the caller's rate
    """

    pattern: str
    keyed: bool = True
    read: str = ""
    write: str = ""
    limited: bool = True


def _orders(pattern: str) -> Route:
    return Route(pattern=pattern, read="orders:read", write="orders:write")


def _analytics(pattern: str) -> Route:
    return Route(pattern=pattern, read="analytics:read")


def _of_operators(pattern: str) -> Route:
    """Asked by machines every few seconds, also when Redis or the keys are away."""
    return Route(pattern=pattern, keyed=False, limited=False)


UNKNOWN = Route(pattern="unknown")
METRICS = _of_operators("metrics")
ROUTES = (
    _orders("orders"),
    _orders("orders/<str:order_id>"),
    _orders("orders/<str:order_id>/pay"),
    _orders("orders/<str:order_id>/ship"),
    _orders("orders/<str:order_id>/cancel"),
    _analytics("analytics/summary"),
    _analytics("analytics/metrics"),
    _analytics("analytics/top-products"),
    METRICS,
    _of_operators("health"),
    _of_operators("health/ready"),
    # What there is to call is told without a key; trying it out takes one.
    Route(pattern="openapi.json", keyed=False),
    Route(pattern="swagger", keyed=False),
    Route(pattern="swagger/", keyed=False),
    # People with a session and a password; guessing that is limited by address.
    Route(pattern="admin", keyed=False),
    Route(pattern="admin/<path:page>", keyed=False),
    # Pages of the admin and of Swagger ask for a dozen at once.
    Route(pattern="static/<path:path>", keyed=False, limited=False),
)


def find_route(path: str) -> Route:
    """The line for a request's path; UNKNOWN for one that nobody has listed."""
    exact = _EXACT.get(path)
    if exact is not None:
        return exact
    for pattern, route in _BY_HEAD.get(path[1:].partition("/")[0], ()):
        if pattern.fullmatch(path):
            return route
    return UNKNOWN


def scope_for(route: Route, method: str) -> str:
    """The scope that a call needs; "" if any key will do."""
    return route.read if method in _READS or not route.write else route.write


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(<\w+:\w+>)", f"/{pattern}")
    converters = {"<str": "[^/]+", "<path": "(?s:.*)"}
    return re.compile(
        "".join(
            converters[part.partition(":")[0]] if part.startswith("<") else re.escape(part)
            for part in parts
        )
    )


_EXACT = {f"/{route.pattern}": route for route in ROUTES if "<" not in route.pattern}
_BY_HEAD: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
for _route in ROUTES:
    if "<" in _route.pattern:
        _head = _route.pattern.partition("/")[0]
        _BY_HEAD.setdefault(_head, []).append((_compiled(_route.pattern), _route))
