"""The barest server that does the same work: no gateway, no validation, no Django on the way.

manage.py run_web --application devtools.benchmarks.hot_paths.bare:application. Same SQL (taken from the
services, which is all that Django is loaded for), sent alike (eventsite/web/hot_paths/wire.py),
coalesced alike, answered after COMMIT; what is written is put into words by hand.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import django
import msgspec
import psycopg
import uuid_utils

from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.hot_paths.wire import Wire
from outbox.database.arrays import array_literal, text_array_literal
from outbox.topics import lane_of

django.setup(set_prefix=False)

from orders.queries import orders_in_words, page_statement  # noqa: E402
from orders.services import INSERT_ORDERS  # noqa: E402
from outbox.publish.events import INSERT_EVENTS  # noqa: E402
from restapi.idempotency import (  # noqa: E402
    KEEP,
    KEPT_HOURS,
    READ_KEPT,
    TRY_LOCKS,
    IdempotencyKey,
    key_of_headers,
)

MAX_BATCH = 256
OPTIONS = "-c plan_cache_mode=force_generic_plan"
BEGIN, COMMIT = ("BEGIN", ()), ("COMMIT", ())
_decode = msgspec.json.Decoder().decode

Perform = Callable[[Wire, Sequence[Any]], Awaitable[Sequence[bytes]]]


class Lane:
    """The idea of the coalescer in as few lines as possible."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._waiting: list[tuple[Any, asyncio.Future[bytes]]] = []
        self._wake = asyncio.Event()
        self._flusher = asyncio.ensure_future(self._flush())

    def submit(self, item: Any) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._wake.set()
        return future

    async def _flush(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            os.environ["DATABASE_URL"], autocommit=True, options=OPTIONS
        )
        wire = Wire(connection)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._waiting[:MAX_BATCH]
                del self._waiting[:MAX_BATCH]
                answers = await self._perform(wire, [item for item, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)


def draft(body: Any) -> tuple[Any, ...]:
    """(order id, customer, total, time, event ids, lines, events of topic, key, type and payload)"""
    order_id, event_id = str(uuid_utils.uuid7()), str(uuid_utils.uuid7())
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    if "user_id" in body:
        user, amount, simple_id = body["user_id"], body["amount"], str(uuid_utils.uuid7())
        created = (
            f'{{"eventType":"ORDER_CREATED","eventId":"{event_id}","orderId":"{order_id}",'
            f'"customerId":"{user}","totalPrice":{amount},"timestamp":"{at}","createdAt":"{at}",'
            '"items":[]}'
        )
        simple = (
            f'{{"event_id":"{simple_id}","user_id":"{user}","amount":{amount},"created_at":"{at}"}}'
        )
        events = [
            (event_id, "order-events", "ORDER_CREATED", created),
            (simple_id, "orders.created", "SIMPLE_ORDER_CREATED", simple),
        ]
        answer = f'{{"status":"success","event_id":"{simple_id}","order_id":"{order_id}"}}'
        return order_id, user, amount, at, (), events, answer.encode()
    lines = [(item["productId"], item["quantity"], item["price"]) for item in body["items"]]
    total = round(sum(quantity * price for _, quantity, price in lines), 2)
    items = ",".join(f'{{"productId":"{p}","quantity":{q},"price":{a}}}' for p, q, a in lines)
    created = (
        f'{{"eventType":"ORDER_CREATED","eventId":"{event_id}","orderId":"{order_id}",'
        f'"customerId":"{body["customerId"]}","totalPrice":{total},"timestamp":"{at}",'
        f'"createdAt":"{at}","items":[{items}]}}'
    )
    events = [(event_id, "order-events", "ORDER_CREATED", created)]
    for product, quantity, _ in lines:
        stock_id = str(uuid_utils.uuid7())
        reserved = (
            f'{{"eventType":"STOCK_RESERVED","eventId":"{stock_id}","orderId":"{order_id}",'
            f'"productId":"{product}","quantity":{quantity},"timestamp":"{at}"}}'
        )
        events.append((stock_id, "stock", "STOCK_RESERVED", reserved))
    answer = (
        f'{{"orderId":"{order_id}","status":"CREATED","totalPrice":{total},"createdAt":"{at}"}}'
    )
    return order_id, body["customerId"], total, at, lines, events, answer.encode()


def parameters(drafts: Sequence[tuple[Any, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the two statements."""
    lines = [(each[0], *line) for each in drafts for line in each[4]]
    events = [(each[0], *event) for each in drafts for event in each[5]]
    orders = (
        array_literal([each[0] for each in drafts]),
        text_array_literal([each[1] for each in drafts]),
        array_literal([each[2] for each in drafts]),
        array_literal([each[3] for each in drafts]),
        text_array_literal(["anonymous"] * len(drafts)),
        text_array_literal([" ".join(event[0] for event in each[5]) for each in drafts]),
        array_literal([line[0] for line in lines]),
        text_array_literal([line[1] for line in lines]),
        array_literal([line[2] for line in lines]),
        array_literal([line[3] for line in lines]),
    )
    outbox = (
        array_literal([event[1] for event in events]),
        array_literal([lane_of(event[0]) for event in events]),
        text_array_literal([event[2] for event in events]),
        text_array_literal([event[0] for event in events]),
        text_array_literal([event[3] for event in events]),
        text_array_literal(["/orders"] * len(events)),
        text_array_literal([event[4] for event in events]),
        text_array_literal([""] * len(events)),
        text_array_literal([""] * len(events)),
    )
    return orders, outbox


async def place(wire: Wire, bodies: Sequence[Any]) -> list[bytes]:
    """One round trip."""
    drafts = [draft(body) for body in bodies]
    orders, outbox = parameters(drafts)
    await wire.trip([BEGIN, (INSERT_ORDERS, orders), (INSERT_EVENTS, outbox), COMMIT])
    return [each[6] for each in drafts]


async def place_once(wire: Wire, requests: Sequence[tuple[Any, IdempotencyKey]]) -> list[bytes]:
    """The same of bodies with keys, each new: locked, looked up, kept."""
    drafts: list[tuple[Any, ...]] = []
    made: list[tuple[str, ...]] = []
    keys = [key for _, key in requests]
    ids = array_literal([key.id for key in keys])
    locks = array_literal([key.lock for key in keys])

    def meanwhile() -> None:
        drafts.extend(draft(body) for body, _ in requests)
        made.extend(parameters(drafts))

    *_, used = await wire.trip(
        [BEGIN, (TRY_LOCKS, (locks,)), (READ_KEPT, (KEPT_HOURS, ids))], meanwhile
    )
    if used:
        raise LookupError("A key was sent twice.")
    orders, outbox = made
    answers = [each[6] for each in drafts]
    kept = (
        ids,
        array_literal([key.fingerprint for key in keys]),
        array_literal([200] * len(keys)),
        text_array_literal([f"\\x{answer.hex()}" for answer in answers]),
    )
    await wire.trip([(INSERT_ORDERS, orders), (INSERT_EVENTS, outbox), (KEEP, kept), COMMIT])
    return answers


async def read(wire: Wire, ids: Sequence[str]) -> list[bytes]:
    [rows] = await wire.trip([orders_in_words(set(ids))])
    found = {id_: words.encode() for id_, words in rows}
    return [found[each] for each in ids]


async def list_first(wire: Wire, asked: Sequence[None]) -> list[bytes]:
    [rows] = await wire.trip([page_statement(limit=20)])
    return [f"[{','.join(row[2] for row in rows[:20])}]".encode()] * len(asked)


_lanes: dict[str, Lane] = {}


def _lane(name: str, perform: Perform) -> Lane:
    if name not in _lanes:
        _lanes[name] = Lane(perform)
    return _lanes[name]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    message, path = await receive(), scope["path"]
    if path == "/health":
        answer = b'{"status":"alive"}'
    elif scope["method"] == "POST":
        body = _decode(message["body"])
        key = key_of_headers(scope["headers"], endpoint="POST /orders", body=message["body"])
        if key is None:
            answer = await _lane("place", place).submit(body)
        else:
            answer = await _lane("place_once", place_once).submit((body, key))
    elif path == "/orders":
        answer = await _lane("list", list_first).submit(None)
    else:
        answer = await _lane("read", read).submit(path[8:])
    length = (b"content-length", str(len(answer)).encode())
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
