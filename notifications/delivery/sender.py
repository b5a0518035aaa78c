"""Sending, many at once, on one event loop for each worker process. No transaction is open
during a call: claims and results are short transactions on a thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
import uvloop
from django.db import close_old_connections, connections

from notifications import metrics
from notifications.delivery.rounds import Call, Done, Round, Rounds
from notifications.delivery.rules import not_begun, result_of
from notifications.delivery.turns import Turn, nudge
from notifications.providers import message as words
from notifications.providers.configured import build, configured
from notifications.providers.message import OutgoingText, Provider, ProviderAnswer
from outbox import tracing
from outbox.database.errors import DATABASE_AWAY, describe

__all__ = ["deliver"]

# That a task claims; with the longest call and its result less than a stop may take.
RUN_SECONDS = 3.0
LINGER_SECONDS = 0.8  # that it looks for more after what was found last
LOOK_SECONDS = 0.02  # between two looks
WRITE_SECONDS = 0.05  # results that come within are written together
WRITE_AGAIN_SECONDS = 0.5
WRITE_MARGIN = 2.0  # of a lease, beyond the call: its result must be written within
WRITE_LEFT_SECONDS = 1.0  # that a task spends, at its start, on results of the one before
GIVE_UP_SECONDS = 13.0  # a run ends before its task's time limit, whatever the database does

T = TypeVar("T")

log = structlog.get_logger("notifications.delivery")


class DeliverySender:
    """What a worker process has for a priority; it belongs to the process's event loop."""

    def __init__(self, priority: str) -> None:
        self._priority = priority
        self._rounds = Rounds(priority)
        # One thread: claims and results follow each other, on one connection.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"delivery-{priority}")
        self._providers: dict[str, Provider] = {}
        self._under_way: Counter[tuple[str, str]] = Counter()
        self._calls: set[asyncio.Task[None]] = set()
        self._done: list[Done] = []
        self._writer: asyncio.Task[None] | None = None

    async def run(self, turn: Turn) -> int:
        """One task's work; how many calls it made."""
        started = time.monotonic()
        made = 0
        try:
            # A connection that broke meanwhile is not used.
            await self._on_thread(close_old_connections)
            made += await self._claim_and_send(turn, until=started + RUN_SECONDS)
        except DATABASE_AWAY as error:
            log.warning("delivery_database_unavailable", error=str(error))
        finally:
            # Also where something unforeseen ends it: what was sent is written.
            await self._on_thread(turn.leave)
            await self._finish(until=started + GIVE_UP_SECONDS)
        return made

    @property
    def has_left(self) -> bool:
        """Whether results, or calls, of an earlier task are still to be written."""
        writes = self._writer is not None and not self._writer.done()
        return bool(self._done or self._calls or writes)

    async def write_left(self) -> None:
        """Write what an earlier task could not, while its leases hold; what stays is for the next."""
        give_up = time.monotonic() + WRITE_LEFT_SECONDS
        while self.has_left and (left := give_up - time.monotonic()) > 0:
            waited: set[asyncio.Task[None]] = set(self._calls)
            if self._done or not waited:
                waited.add(self._writing())
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _claim_and_send(self, turn: Turn, *, until: float) -> int:
        made = 0
        found_at = float("-inf")  # a task that finds nothing at first does not stay
        while True:
            round_ = await self._round(turn)
            made += len(round_.calls)
            now = time.monotonic()
            waits_for_room = round_.ready and self._calls
            if round_.calls or round_.next_at is not None or waits_for_room:
                found_at = now
            elif now - found_at > LINGER_SECONDS:
                # From here on new notifications ask for another task; one last look finds those
                # that came just before.
                await self._on_thread(turn.leave)
                return made + len((await self._round(turn)).calls)
            if now >= until:
                break
            next_at = now + LOOK_SECONDS if round_.next_at is None else round_.next_at
            await asyncio.sleep(max(0.0, next_at - now))
        await self._on_thread(turn.leave)
        await self._on_thread(nudge, self._priority)
        return made

    async def _round(self, turn: Turn) -> Round:
        await self._on_thread(turn.keep)
        round_ = await self._on_thread(self._rounds.claim, dict(self._under_way))
        for call in round_.calls:
            self._under_way[call.provider, call.claim.channel] += 1
            task = asyncio.create_task(self._send(call))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return round_

    async def _send(self, call: Call) -> None:
        claim = call.claim
        try:
            self._note(await self._call(call))
        except Exception as error:
            log.exception("send_failed", notification_id=claim.id, provider=call.provider)
            answer = ProviderAnswer(
                verdict=words.FAILED, error=f"The call failed: {describe(error)}"
            )
            self._note(_done_of(call, answer, 0.0))
        finally:
            self._under_way[call.provider, claim.channel] -= 1

    async def _call(self, call: Call) -> Done:
        claim, settings = call.claim, configured()[call.provider]
        # The last look at the lease: a process that was stopped since its claim begins nothing.
        if time.monotonic() + settings.timeout + WRITE_MARGIN > claim.until:
            reason = "Not sent: the lease would have ended during the call."
            return Done(call, not_begun(claim, reason))
        if (provider := self._providers.get(call.provider)) is None:
            provider = self._providers[call.provider] = build(call.provider)
        message = OutgoingText(
            id=claim.id,
            idempotency_key=claim.idempotency_key,
            recipient=claim.recipient,
            channel=claim.channel,
            content=claim.content,
            title=claim.title,
        )
        with tracing.step(
            f"send {claim.channel}", tracing.CLIENT, parent=claim.traceparent
        ) as step:
            if step.recorded:
                step.record(
                    {
                        "notification.id": claim.id,
                        "notification.attempt": claim.number,
                        "notification.channel": claim.channel,
                        "notification.provider": call.provider,
                    }
                )
            started = time.monotonic()
            answer = await provider.send(message, traceparent=tracing.current_traceparent())
            seconds = time.monotonic() - started
            if answer.status_code is not None and step.recorded:
                step.record({"http.response.status_code": answer.status_code})
            if answer.verdict != words.DELIVERED:
                step.fail(answer.verdict, answer.error or "")
        metrics.SEND_SECONDS.labels(claim.channel, call.provider).observe(seconds)
        return _done_of(call, answer, seconds)

    def _note(self, done: Done) -> None:
        self._done.append(done)
        self._writing()

    def _writing(self) -> asyncio.Task[None]:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_soon())
        return self._writer

    async def _write_soon(self) -> None:
        """Write what has come until then, and come again while there is more."""
        while self._done:
            await asyncio.sleep(WRITE_SECONDS)
            batch, self._done = self._done, []
            try:
                await self._write(batch)
            except DATABASE_AWAY as error:
                log.warning("results_not_written", error=str(error), results=len(batch))
                self._done = batch + self._done
                await asyncio.sleep(WRITE_AGAIN_SECONDS)

    async def _write(self, batch: list[Done]) -> None:
        """A result that cannot be written with the others is tried alone, and finally left to
        its lease."""
        try:
            await self._on_thread(self._rounds.write, batch)
        except DATABASE_AWAY:
            raise
        except Exception:
            if len(batch) == 1:
                log.exception("result_lost", notification_id=batch[0].call.claim.id)
                return
            for done in batch:
                await self._write([done])

    async def _finish(self, *, until: float) -> None:
        """Wait for what is under way, and for its results."""
        if self._calls:
            # Nothing is held while providers answer.
            await self._on_thread(connections.close_all)
        if calls := set(self._calls):  # some may have ended meanwhile
            left = until - WRITE_MARGIN - time.monotonic()
            await asyncio.wait(calls, timeout=max(0.0, left))
        if self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer], timeout=max(0.0, until - time.monotonic()))
        if self.has_left:
            # Results are written by the next task, also one without a turn.
            log.error("results_wait", results=len(self._done), calls=len(self._calls))

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _done_of(call: Call, answer: ProviderAnswer, seconds: float) -> Done:
    counts = {words.DELIVERED: True, words.FAILED: False}.get(answer.verdict)
    result = result_of(
        call.claim, answer, latency_ms=round(seconds * 1000), probe=call.permit.probe
    )
    return Done(call, result, counts, answer.hold_seconds)


class _Process:
    """The loop and the senders of this process, made after the fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = uvloop.new_event_loop()
        self.senders: dict[str, DeliverySender] = {}


_process: _Process | None = None


def deliver(priority: str) -> int:
    """The work of a delivery task: as many calls of providers as there is time for; returns how
    many it made.

    Returns at once where enough other tasks are running, after writing results that the
    previous task left. Raises redis.RedisError before anything is claimed."""
    global _process
    if _process is None or _process.pid != os.getpid():
        _process = _Process()
    if (sender := _process.senders.get(priority)) is None:
        sender = _process.senders[priority] = DeliverySender(priority)
    if sender.has_left:
        _process.loop.run_until_complete(sender.write_left())
    turn = Turn(priority)
    if not turn.take():
        return 0
    return _process.loop.run_until_complete(sender.run(turn))
