"""Writes with an id in the path or parameters in the query, by other methods than POST: as Django
answers them, each key once, one winner. The app is of this test: seats that are cancelled."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from django.db import connection, connections
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.web.gateway.django_app import DjangoApplication, middleware_headers
from eventsite.web.hot_paths.layer import HotPaths
from outbox.database.arrays import array_literal, text_array_literal
from outbox.database.round_trips import Change, RoundTrip, Steps
from restapi.answers import to_response
from restapi.errors import Conflict
from restapi.hot_path import Asked, HotPath
from restapi.hot_query import matching
from restapi.idempotency import Keyed, NotDone, key_of
from restapi.json import parse_json
from restapi.models import IdempotencyRow

pytestmark = pytest.mark.django_db(transaction=True)

SEAT = "01890000-0000-7000-8abc-{:012d}"
SEATS = [SEAT.format(number) for number in range(3)]
JSON = (b"content-type", b"application/json")
WORD = re.compile(r"[a-z]{1,20}")


class Cancel(NamedTuple):
    seat: str
    reason: str


def read(asked: Asked) -> Cancel:
    fields = parse_json(asked.body) if asked.body else {}
    if not isinstance(fields, dict):
        raise ValidationError("Must be an object.")
    reason = asked.given.get("reason") or fields.get("reason", "none")
    if not isinstance(reason, str) or not WORD.fullmatch(reason):
        raise ValidationError({"reason": ["Must be a word."]})
    return Cancel(asked.id or asked.given["seat"], reason)


def cancelling(commands: Sequence[Cancel]) -> Steps[str | None]:
    ids = array_literal(sorted({command.seat for command in commands}))
    [rows] = yield RoundTrip([(LOCK, (ids,))])
    taken = {seat for (seat,) in rows}
    results: list[str | None] = []
    for command in commands:
        results.append(command.seat if command.seat in taken else None)
        taken.discard(command.seat)  # of two in a batch the first
    done = [command for command, result in zip(commands, results, strict=True) if result]
    columns = (
        array_literal([command.seat for command in done]),
        text_array_literal([command.reason for command in done]),
    )
    return Change(results, RoundTrip([(CANCEL, columns)] if done else []))


LOCK = """
    SELECT id::text FROM seats WHERE id = ANY(%s::uuid[]) AND state = 'taken'
    ORDER BY id FOR UPDATE
"""
CANCEL = """
    UPDATE seats SET state = 'cancelled', reason = wanted.reason, times = times + 1
    FROM unnest(%s::uuid[], %s::text[]) AS wanted (id, reason) WHERE seats.id = wanted.id
"""


def done(command: Cancel, seat: str) -> tuple[int, Any]:
    return 200, {"seat": seat, "reason": command.reason}


def hot(method: str) -> HotPath[Cancel, str]:
    return HotPath(
        method=method,
        path="/seats/{id}/cancel",
        route="seats/<str:seat>/cancel",
        parameters={"reason": matching(WORD)},
        read=read,
        write=cancelling,
        answer=done,
    )


METHODS = ("POST", "PUT", "PATCH", "DELETE")
HOT = [hot(method) for method in METHODS]
BY_QUERY = HotPath(
    method="DELETE",
    path="/seats",
    route="seats",
    parameters={"seat": matching(HOT[0].id), "reason": matching(WORD)},
    read=read,
    write=cancelling,
    answer=done,
)


class SeatView(APIView):
    def change(self, request: Request, seat: str = "") -> HttpResponse:
        key = key_of(request, query=True)
        body = request._request.body
        assert request.data is not None  # what is no JSON is refused here
        command = read(Asked(seat, request.query_params.dict(), body))
        try:
            [answer] = BY_QUERY.perform([Keyed(command, key)])
        except NotDone:
            with connection.cursor() as cursor:
                cursor.execute("SELECT state FROM seats WHERE id::text = %s", [command.seat])
                row = cursor.fetchone()
            if row is None:
                raise NotFound(f"There is no seat {command.seat}.") from None
            raise Conflict("It cannot be cancelled.", status=row[0]) from None
        return to_response(answer)

    post = put = patch = delete = change


@pytest.fixture(autouse=True)
def seats(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    urls = ModuleType("urls_of_this_test")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("seats/<str:seat>/cancel", SeatView.as_view()),
        path("seats", SeatView.as_view()),
    ]
    monkeypatch.setitem(sys.modules, "urls_of_this_test", urls)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE seats (id uuid PRIMARY KEY, state text DEFAULT 'taken',"
            " reason text, times int DEFAULT 0)"
        )
    fill()
    with override_settings(ROOT_URLCONF="urls_of_this_test"):
        yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE seats")


def fill() -> None:
    """As at the beginning."""
    IdempotencyRow.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE seats")
        cursor.execute("INSERT INTO seats (id) SELECT unnest(%s::uuid[])", [SEATS])


def stored() -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id::text, state, reason, times FROM seats ORDER BY id")
        return list(cursor.fetchall())


class Answered(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    hot: bool


class Way:
    """The layer with real Django behind it, which counts what it answers itself."""

    def __init__(self, *, hot: bool) -> None:
        self._django = DjangoApplication(threads=1)
        self.asked = 0
        paths = [*HOT, BY_QUERY] if hot else []
        self.layer = HotPaths(self._through, paths, headers=middleware_headers())

    async def _through(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self._django(scope, receive, send)

    async def request(
        self, method: str, line: str, body: bytes = b"", *headers: tuple[bytes, bytes]
    ) -> Answered:
        before = self.asked
        start, *rest = await _sent(self.layer, method, line, body, headers)
        told = b"".join(message.get("body", b"") for message in rest)
        found = sorted((name.lower(), value) for name, value in start["headers"])
        return Answered(start["status"], found, told, self.asked == before)

    async def close(self) -> None:
        await self.layer.close()
        await asyncio.wrap_future(self._django._threads.submit(connections.close_all))


async def _sent(
    application: Application,
    method: str,
    line: str,
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]],
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    path, _, query = line.partition("?")
    length = [(b"content-length", str(len(body)).encode())] if body else []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"testserver"), *length, *headers],
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        "http_version": "1.1",
    }
    await application(scope, receive, send)
    return sent


def both_ways(*requests: tuple[Any, ...]) -> list[list[Answered]]:
    """The same requests, one after the other, before Django and through it; what they leave is the
    same. The answers of the first."""

    async def one_way(hot: bool) -> list[Answered]:
        way = Way(hot=hot)
        try:
            return [await way.request(*request) for request in requests]
        finally:
            await way.close()

    answers, rows = [], []
    for hot_way in (True, False):
        fill()
        answers.append(asyncio.run(one_way(hot_way)))
        rows.append(stored())
    assert [each[:3] for each in answers[0]] == [each[:3] for each in answers[1]]
    assert rows[0] == rows[1]
    assert not any(each.hot for each in answers[1])
    return answers


LINE = f"/seats/{SEATS[1]}/cancel"
SURE: list[tuple[Any, ...]] = [
    *((method, LINE) for method in METHODS),
    ("PATCH", LINE, b'{"reason": "rain"}', JSON),
    ("PATCH", LINE, b"", JSON),
    ("PATCH", f"{LINE}?reason=rain"),
    ("PATCH", f"{LINE}?reason=rain", b'{"reason": "snow"}', JSON),
    ("DELETE", f"/seats?seat={SEATS[1]}&reason=rain"),
    ("DELETE", f"/seats?reason=rain&seat={SEATS[1]}"),
    ("PATCH", LINE, b"", (b"idempotency-key", b"k")),
]
DJANGOS: list[tuple[Any, ...]] = [
    ("PATCH", f"/seats/{SEAT.format(9)}/cancel"),
    ("PATCH", LINE.replace("-", "")),
    ("PATCH", LINE + "/"),
    ("PATCH", f"/seats/{SEATS[1].upper()}/cancel"),
    ("PATCH", f"/seats/{SEATS[1]}\n/cancel"),
    ("PATCH", "/seats//cancel"),
    ("PATCH", f"/seats/x/{SEATS[1]}/cancel"),
    ("PATCH", f"/seats/{SEATS[1]}/cancel/cancel"),
    ("PATCH", f"/seats/{SEATS[1]}"),
    ("PATCH", f"{LINE}?reason=%72ain"),
    ("PATCH", f"{LINE}?reason=rain&reason=snow"),
    ("PATCH", f"{LINE}?reason="),
    ("PATCH", f"{LINE}?reason=Rain"),
    ("PATCH", f"{LINE}?reason=rain&unknown=1"),
    ("PATCH", f"{LINE}?reason=rain&"),
    ("PATCH", LINE, b'{"reason": "RAIN"}', JSON),
    ("PATCH", LINE, b"{", JSON),
    ("PATCH", LINE, b"[]", JSON),
    ("PATCH", LINE, b"{}"),
    ("PATCH", LINE, b"{}", (b"content-type", b"text/plain")),
    ("PATCH", LINE, b"", (b"content-type", b"text/plain")),
    ("PATCH", LINE, b"", (b"content-type", b"")),
    ("PATCH", LINE, b"", (b"idempotency-key", b"\x7f")),
    ("GET", LINE),
    ("OPTIONS", LINE),
]


@pytest.mark.parametrize("request_", SURE)
def test_what_is_sure_is_done_before_django_and_alike(request_: tuple[Any, ...]) -> None:
    [[answer], _] = both_ways(request_)
    assert answer.hot
    assert answer.status == 200
    assert [state for _, state, *_ in stored()] == ["taken", "cancelled", "taken"]


@pytest.mark.parametrize("request_", DJANGOS)
def test_what_is_not_sure_is_djangos(request_: tuple[Any, ...]) -> None:
    [[answer], _] = both_ways(request_)
    assert not answer.hot
    assert answer.status < 500


def test_what_cannot_be_done_is_told_by_django_and_holds_nobody_up() -> None:
    [answers, _] = both_ways(("PATCH", LINE), ("PATCH", LINE), ("PATCH", LINE.replace("1/", "2/")))
    assert [each.status for each in answers] == [200, 409, 200]
    assert [each.hot for each in answers] == [True, False, True]
    assert json.loads(answers[1].body)["status"] == "cancelled"


def test_a_key_belongs_to_the_method_and_the_path_that_was_asked_for() -> None:
    key = (b"idempotency-key", b"k")
    other = LINE.replace(SEATS[1], SEATS[2])
    statuses = [
        [(each.status, dict(each.headers).get(b"idempotent-replayed")) for each in answers]
        for answers in both_ways(
            ("PATCH", LINE, b"", key),
            ("PATCH", LINE, b"", key),
            ("PATCH", other, b"", key),
            ("PUT", LINE, b"", key),
            ("PATCH", f"{LINE}?reason=rain", b"", key),
            ("PATCH", LINE, b"{}", key, JSON),
        )
    ]
    told = [(200, None), (200, b"true"), (200, None), (409, None), (422, None), (422, None)]
    assert statuses == [told, told]


@pytest.mark.parametrize("first", [True, False])
def test_a_key_is_the_same_whoever_answers_first(first: bool) -> None:
    async def scenario() -> None:
        ways = [Way(hot=first), Way(hot=not first)]
        line, key = f"{LINE}?reason=rain", (b"idempotency-key", b"k")
        answers = [await way.request("PATCH", line, b"", key) for way in ways]
        assert [each.status for each in answers] == [200, 200]
        assert answers[0].body == answers[1].body
        assert (b"idempotent-replayed", b"true") in answers[1].headers
        for way in ways:
            await way.close()

    asyncio.run(scenario())
    assert stored()[1] == (SEATS[1], "cancelled", "rain", 1)


@pytest.mark.parametrize("keyed", [False, True])
def test_of_many_at_once_one_wins(keyed: bool) -> None:
    """In one batch and in several, with Django beside them; what is refused keeps no key."""

    async def scenario() -> None:
        ways = [Way(hot=True), Way(hot=True), Way(hot=False)]
        tasks = []
        for number in range(36):
            headers = [(b"idempotency-key", b"%d" % number)] if keyed else []
            line = f"/seats/{SEATS[number % 3]}/cancel"
            tasks.append(ways[number // 3 % 3].request("PATCH", line, b"", *headers))
        answers = await asyncio.gather(*tasks)
        assert sorted(each.status for each in answers) == [200] * 3 + [409] * 33
        for way in ways:
            await way.close()

    asyncio.run(scenario())
    assert [times for *_, times in stored()] == [1, 1, 1]
    assert IdempotencyRow.objects.count() == (3 if keyed else 0)
