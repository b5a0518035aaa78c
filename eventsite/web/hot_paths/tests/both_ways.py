"""The same request to a process with hot paths and to one without, and what must be equal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping

from devtools.testing.web import JSON, Answer, Web
from restapi.tests.tables import rows_in_words, without_made_up

__all__ = [
    "CSRF",
    "MADE_UP",
    "NOBODY",
    "OF_THE_REQUEST",
    "ORDER",
    "OURS",
    "SIMPLE",
    "SIMPLE_BODY",
    "assert_equal",
    "coalesced",
    "fill_in",
    "headers_of",
    "placed",
    "stored",
    "told",
    "with_key",
]

OURS = {"X-Correlation-ID": "of-this-test"}  # is in every row that tells of the request
ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
SIMPLE = {"user_id": "u1", "amount": 42.5}
SIMPLE_BODY = json.dumps(SIMPLE).encode()
NOBODY = "01890000-0000-7000-8000-00000000dead"
MADE_UP = re.compile(
    rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    rb"|\b\d{17,19}\b"  # an id of a post
)
# "connection" tells whether the body had come when the gateway refused the request: an accident.
OF_THE_REQUEST = frozenset(
    {"connection", "date", "x-request-id", "x-correlation-id", "traceparent"}
)
CSRF = re.compile(r"csrftoken=\w+|expires=[^;]+")


def headers_of(answer: Answer) -> list[tuple[str, str]]:
    """All but those that are made for each request. A new CSRF token is as good as another, and
    the methods of a function's view have another order in each process."""
    return sorted(
        (name.lower(), CSRF.sub("?", _sorted(value) if name.lower() == "allow" else value))
        for name, value in answer.headers
        if name.lower() not in OF_THE_REQUEST
    )


def _sorted(methods: str) -> str:
    return ", ".join(sorted(methods.split(", ")))


def told(answer: Answer, *, made_up: bool) -> tuple[int, list[tuple[str, str]], bytes]:
    """What must be equal; ids and times in the answer to a POST are made up anew."""
    body = MADE_UP.sub(b"?", answer.body) if made_up else answer.body
    return answer.status, headers_of(answer), body


def stored(before: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows that have come since, and what nobody may have touched."""
    after = rows_in_words()
    touched = sorted((before - after).elements())
    assert touched == [], "\n".join([*map(str, touched), "now:", *map(str, after - before)])
    return without_made_up(after - before)


def assert_equal(
    ways: tuple[Web, Web], method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> int:
    answers, rows = [], []
    for web in ways:
        before = rows_in_words()
        answers.append(web.request(method, path, body, {**OURS, **headers}))
        rows.append(stored(before))
    made_up = method.upper() == "POST"
    assert told(answers[0], made_up=made_up) == told(answers[1], made_up=made_up)
    assert rows[0] == rows[1]
    return answers[0].status


def placed(web: Web) -> str:
    """The id of an order that was paid, with a simple one behind it."""
    order_id = str(web.post("/orders", ORDER).json["orderId"])
    assert web.post(f"/orders/{order_id}/pay").status == 200
    assert web.post("/orders", SIMPLE).status == 200
    return order_id


def fill_in(path: str, order_id: str) -> str:
    return path.format(order=order_id, ORDER=order_id.upper(), plain=order_id.replace("-", ""))


def with_key(key: str | bytes) -> Mapping[str, str]:
    """Both ways take the same bytes."""
    raw = key.encode() if isinstance(key, str) else key
    return JSON | {"Idempotency-Key": raw.decode("latin-1")}


def coalesced(web: Web, path: str) -> float:
    """How many requests the process has answered by this path's coalescer."""
    text = web.get("/metrics").body.decode()
    wanted = rf'^hot_path_batch_commands_sum\{{path="{re.escape(path)}"\}} (\S+)$'
    found = re.search(wanted, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
