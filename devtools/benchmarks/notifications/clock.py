"""Notifications by the clock: one at each moment, however long the answers before it take."""

from __future__ import annotations

import asyncio
import json
import time

import msgspec
import uvloop

from loadtest.client import Client

__all__ = ["SentAt", "by_the_clock"]


class SentAt(msgspec.Struct, frozen=True):
    """The moment that it was to be sent (monotonic seconds), and its id."""

    at: float
    id: str


def by_the_clock(url: str, *, rate: float, seconds: float, priority: str) -> list[SentAt]:
    """Everything that was accepted; anything else is an error."""
    return uvloop.run(_send(url, rate, seconds, priority))


async def _send(url: str, rate: float, seconds: float, priority: str) -> list[SentAt]:
    base, _, path = url.partition("/api/")
    client = Client(base)
    sent: list[SentAt] = []

    async def one(number: int, at: float) -> None:
        body = {
            "recipient": f"+1555{number:07}",
            "channel": "sms",
            "content": "Hello",
            "priority": priority,
        }
        answer = await client.request(
            b"POST", f"/api/{path}".encode(), json.dumps(body).encode(), b""
        )
        if answer.status != 201:
            raise RuntimeError(f"{answer.status}: {answer.body!r}")
        sent.append(SentAt(at, json.loads(answer.body)["id"]))

    begin = time.monotonic() + 0.1
    calls = []
    for number in range(round(rate * seconds)):
        at = begin + number / rate
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        calls.append(asyncio.create_task(one(number, at)))
    await asyncio.gather(*calls)
    client.close()
    return sent
