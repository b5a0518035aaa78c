"""Notifications against a running system, and whether each of them was sent: every accepted one is
looked for over HTTP until it is finished, and, where the run has a provider of its own, with that."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import msgspec
import uvloop

from loadtest.client import Client, Failed
from loadtest.notifications_tally import NotificationsTally
from loadtest.sending import RunPlan, each_second, send_all

__all__ = ["NotificationsPlan", "bodies", "look_for_all", "send_notifications"]

PATH = b"/api/v1/notifications"
LOOKS_AT_ONCE = 16
POLL = 0.05  # seconds between two looks at one that is not finished
FINISHED = frozenset({"delivered", "failed", "cancelled"})
SHARES = {"high": 0.2, "normal": 0.5, "low": 0.3}
CONTENT = 100  # characters

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationsPlan(RunPlan):
    """batch   notifications in a request; 1: each by itself
    settle  seconds for all of them to be finished
    """

    batch: int = 1
    settle: float = 60.0


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
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_send(plan, on_second))


async def _send(
    plan: NotificationsPlan, on_second: Callable[[NotificationsTally], None]
) -> NotificationsTally:
    client = Client(plan.url, timeout=plan.timeout, headers=plan.headers)
    tally = NotificationsTally()
    run = _Run(plan, client, tally)
    try:
        async with each_second(partial(on_second, tally)):
            await send_all(plan, run.send, not_started=tally.note_not_sent)
    finally:
        client.close()
    tally.seconds = max(plan.seconds, time.perf_counter() - tally.begin)
    return tally


class _Run:
    """The requests of one run."""

    def __init__(self, plan: NotificationsPlan, client: Client, tally: NotificationsTally) -> None:
        self._plan = plan
        self._client = client
        self._tally = tally
        self._next_body = bodies(plan)
        self._path = PATH if plan.batch == 1 else PATH + b"/batch"

    async def send(self, intended: float) -> bool:
        """One request; whether it was accepted."""
        tally = self._tally
        tally.due += 1
        try:
            status, body = await self._client.request(b"POST", self._path, self._next_body())
        except Failed as failure:
            tally.errors[failure.kind] += 1
            return False
        if status != 201:
            tally.errors[f"status {status}"] += 1
            return False
        try:
            accepted = (
                [_decode(body)] if self._plan.batch == 1 else _decode_batch(body).notifications
            )
        except msgspec.DecodeError:
            tally.errors["malformed"] += 1
            return False
        tally.note_accepted(intended, [each.id for each in accepted])
        return True


def look_for_all(plan: NotificationsPlan, tally: NotificationsTally) -> None:
    """Ask for every accepted one until it is finished, for `settle` seconds at most."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_look_for_all(plan, tally))


async def _look_for_all(plan: NotificationsPlan, tally: NotificationsTally) -> None:
    client = Client(plan.url, timeout=plan.timeout, headers=plan.headers)
    give_up = time.perf_counter() + plan.settle
    remaining = iter(list(tally.accepted_at))

    async def look() -> None:
        for id_ in remaining:
            tally.note_end(id_, await _end_of(client, id_, give_up))

    try:
        await asyncio.gather(*(look() for _ in range(LOOKS_AT_ONCE)))
    finally:
        client.close()
    tally.waited = time.perf_counter() - give_up + plan.settle


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
