"""The barest program: uvicorn, one statement on PostgreSQL, no framework, no event, no validation.

POST /orders answers after the COMMIT of one INSERT; GET reads the same rows as ours in one SELECT.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
import uuid_utils
from psycopg.rows import dict_row

__all__ = ["CREATE", "DROP", "application"]

CONNECTIONS = 16
CREATE = """
    CREATE TABLE IF NOT EXISTS bench_orders (
        id uuid PRIMARY KEY, customer_id text NOT NULL, total numeric(20, 2) NOT NULL, body jsonb)
"""
DROP = "DROP TABLE IF EXISTS bench_orders"
LIST = """
    SELECT id AS "orderId", customer_id AS "customerId", status, total AS "totalPrice",
           created_at AS "createdAt"
    FROM orders ORDER BY created_at DESC, id DESC LIMIT 20
"""
ONE = LIST.partition("ORDER BY")[0] + "WHERE id = %s::uuid"
INSERT = "INSERT INTO bench_orders VALUES (%s::uuid, %s, %s::numeric, %s::jsonb)"
encode = msgspec.json.Encoder(decimal_format="number").encode


class _Pool:
    def __init__(self) -> None:
        self._free: asyncio.Queue[psycopg.AsyncConnection[dict[str, Any]]] = asyncio.Queue()

    async def fill(self) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait(
                await psycopg.AsyncConnection.connect(
                    os.environ["DATABASE_URL"],
                    autocommit=True,
                    prepare_threshold=0,
                    row_factory=dict_row,
                )
            )

    @asynccontextmanager
    async def connection(self) -> Any:
        taken = await self._free.get()
        try:
            yield taken
        finally:
            self._free.put_nowait(taken)


pool = _Pool()


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """ASGI."""
    if scope["type"] == "lifespan":
        await receive()
        await pool.fill()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/health":
        status, answer = 200, b"{}"
    elif scope["method"] == "POST":
        status, answer = 201, await _post((await receive())["body"])
    else:
        status, answer = 200, await _get(path.removeprefix("/orders").removeprefix("/"))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _post(body: bytes) -> bytes:
    order = msgspec.json.decode(body)
    order_id = str(uuid_utils.uuid7())
    customer = order.get("customerId") or order["user_id"]
    total = order.get("amount") or sum(i["quantity"] * i["price"] for i in order["items"])
    async with pool.connection() as connection:
        await connection.execute(INSERT, (order_id, customer, str(total), body.decode()))
    return encode({"orderId": order_id, "status": "CREATED", "totalPrice": total})


async def _get(order_id: str) -> bytes:
    async with pool.connection() as connection:
        if order_id:
            cursor = await connection.execute(ONE, (order_id,))
            return encode(await cursor.fetchone())
        cursor = await connection.execute(LIST)
        return encode(await cursor.fetchall())
