"""Notifications against a running system, and whether each of them was sent: every accepted one is
looked for over HTTP until it is finished, and, where the run has a provider of its own, with that."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from uuid import UUID

import msgspec

from loadtest.client import Client, Failed, run_with
from loadtest.notifications_report import NotificationsPlan, NotificationsTally
from loadtest.sending import for_each, send_all

__all__ = ["bodies", "look_for_all", "send_notifications"]

PATH = b"/api/v1/notifications"
POLL = 0.05  # seconds between two looks at one that is not finished
FINISHED = frozenset({"delivered", "failed", "cancelled"})
SHARES = {"high": 0.2, "normal": 0.5, "low": 0.3}
CONTENT = 100  # characters

_encode = msgspec.json.Encoder().encode


class _Accepted(msgspec.Struct):
    """A notification, as far as it is looked at."""

    id: UUID
    status: str


class _Batch(msgspec.Struct):
    notifications: list[_Accepted]


_decode = msgspec.json.Decoder(_Accepted).decode
_decode_batch = msgspec.json.Decoder(_Batch).decode


def bodies(plan: NotificationsPlan) -> Callable[[], bytes]:
    """Makes one body after the other; the same seed makes the same ones. All channels alike, two in ten
    are high, three are low."""
    chooser = random.Random(f"notifications {plan.seed}")  # noqa: S311  (a repeatable choice)
    numbers = itertools.count(1)

    def one() -> dict[str, str]:
        number = next(numbers)
        channel = chooser.choice(("sms", "email", "push"))
        [priority] = chooser.choices([*SHARES], [*SHARES.values()])
        recipient = {
            "sms": f"+9050{number % 10**8:08}",
            "email": f"user{number}@example.com",
            "push": f"token-{number}",
        }[channel]
        content = f"Message {number} of {plan.run}. ".ljust(CONTENT, "x")[:CONTENT]
        return {
            "channel": channel, "recipient": recipient, "content": content, "priority": priority
        }  # fmt: skip

    if plan.batch == 1:
        return lambda: _encode(one())
    return lambda: _encode({"notifications": [one() for _ in range(plan.batch)]})


def send_notifications(
    plan: NotificationsPlan, *, on_second: Callable[[NotificationsTally], None] = lambda _: None
) -> NotificationsTally:
    """Send them; returns when the last answer is here."""
    client, tally, next_body = plan.client(), NotificationsTally(), bodies(plan)
    path = PATH if plan.batch == 1 else PATH + b"/batch"

    async def send(intended: float) -> bool:
        tally.due += 1
        try:
            status, body = await client.request(b"POST", path, next_body())
            if status != 201:
                raise Failed(f"status {status}")
            accepted = [_decode(body)] if plan.batch == 1 else _decode_batch(body).notifications
        except (Failed, msgspec.DecodeError) as failure:
            tally.errors[failure.kind if isinstance(failure, Failed) else "malformed"] += 1
            return False
        tally.note_accepted(intended, [each.id for each in accepted])
        return True

    run_with(client, send_all(plan, send, tally, on_second))
    tally.seconds = max(plan.seconds, time.perf_counter() - tally.begin)
    return tally


def look_for_all(plan: NotificationsPlan, tally: NotificationsTally) -> None:
    """Ask for every accepted one until it is finished, for `settle` seconds at most."""
    client, begin = plan.client(), time.perf_counter()

    async def look(id_: UUID) -> None:
        tally.note_end(id_, await _end_of(client, id_, begin + plan.settle))

    run_with(client, for_each(tally.accepted_at, look))
    tally.waited = time.perf_counter() - begin


async def _end_of(client: Client, id_: UUID, give_up: float) -> str:
    """Its last status; "missing" for one that is not there, "unchecked" where nothing answers."""
    while True:
        status = "unchecked"
        try:
            code, body = await client.request(b"GET", PATH + b"/" + str(id_).encode())
            if code == 404:
                return "missing"
            if code == 200:
                status = _decode(body).status
        except (Failed, msgspec.DecodeError):
            pass
        if status in FINISHED or time.perf_counter() >= give_up:
            return status
        await asyncio.sleep(POLL)
