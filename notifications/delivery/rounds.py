"""The database's side of a sender, on one thread: what is ready, tokens, claims; and results."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import uuid4

import msgspec
import structlog
from django.db import transaction

from notifications import metrics
from notifications.delivery import rows
from notifications.delivery.breakers import Breakers, Openings
from notifications.delivery.pace import Pace
from notifications.delivery.rules import Claim, Result
from notifications.models import Outcome
from notifications.providers.configured import breaker_name, in_order
from outbox.breaker.machine import CallOutcome as BreakerOutcome
from outbox.breaker.machine import Permit
from outbox.database import patience
from outbox.database.errors import DATABASE_AWAY
from outbox.pacing.limiter import Draw

__all__ = ["LEASE_SECONDS", "Call", "Done", "Round", "Rounds"]

# A claim is sent at once: the longest timeout of a provider, and what writing its result may take.
LEASE_SECONDS = 15.0
MOST = 200  # of a channel in one claim
DATABASE_SECONDS = 4.0  # for one step, then the sender gives up
KEEP_SENDER_SECONDS = 2.0

log = structlog.get_logger("notifications.delivery")


class Call(msgspec.Struct, frozen=True):
    """A claim, the provider that is to be called, and what the breaker has permitted."""

    claim: Claim
    provider: str
    permit: Permit


class Done(msgspec.Struct, frozen=True):
    """The outcome of a call. `counts`: whether it was a success or a failure of the provider;
    None: it shows neither."""

    call: Call
    result: Result
    counts: bool | None = None
    hold_seconds: float = 0.0


class Round(msgspec.Struct, frozen=True):
    """What one round has claimed. `next_at`: monotonic time from which the next round can claim more; None: not known, so the
    sender looks every 20 ms. `ready`: whether anything is."""

    calls: Sequence[Call] = ()
    next_at: float | None = None
    ready: bool = True


class Rounds:
    """Of one priority in one process. Every method runs on the same thread, in its connection."""

    def __init__(self, priority: str) -> None:
        self.priority = priority
        self._pace = Pace(priority)
        self._breakers = Breakers()
        self._sender = str(uuid4())
        self._seen_at = float("-inf")
        self._probes = 0

    def claim(self, under_way: Mapping[tuple[str, str], int]) -> Round:
        """Look, draw tokens, claim. `under_way`: calls by provider and channel. Raises
        DATABASE_AWAY."""
        with patience.within(DATABASE_SECONDS, each=DATABASE_SECONDS):
            served = [channel for channel in rows.CHANNELS if in_order(channel)]
            found = rows.look(self.priority, served, most=MOST)
            if not found.ready:
                return Round(ready=False)
            self._keep_sender()
            openings = self._openings(found, under_way)
            draws, times = self._draw(found, openings)
            if not draws:
                return Round(next_at=min(times, default=None))
            calls = self._claim(openings, draws)
            more = any(
                not draw.wait_ms and (found.ready[channel] > draw.tokens or draw.tokens == MOST)
                for channel, draw in draws.items()
            )
            return Round(calls, next_at=0.0 if more and calls else min(times, default=None))

    def write(self, done: Sequence[Done]) -> None:
        """Write the results of calls in one transaction, then report them to the breakers. Raises DATABASE_AWAY: then it
        may be called again with the same ones."""
        holds: dict[tuple[str, str], float] = {}
        for each in done:
            if each.hold_seconds:
                where = each.call.provider, each.call.claim.channel
                holds[where] = max(holds.get(where, 0.0), each.hold_seconds)
        with patience.within(DATABASE_SECONDS, each=DATABASE_SECONDS), transaction.atomic():
            settled = rows.settle([each.result for each in done])
            rows.hold(holds)
        self._tell(done, settled)
        self._report(done)

    def _keep_sender(self) -> None:
        if time.monotonic() - self._seen_at < KEEP_SENDER_SECONDS:
            return
        rows.keep_sender(self._sender, f"{self.priority}@{socket.gethostname()}:{os.getpid()}")
        self._seen_at = time.monotonic()

    def _openings(
        self, found: rows.Ready, under_way: Mapping[tuple[str, str], int]
    ) -> dict[str, Openings]:
        looks = self._breakers.look()
        room = {
            (name, channel): settings.in_flight - under_way.get((name, channel), 0)
            for channel in found.ready
            for name, settings in in_order(channel)
        }
        openings = {}
        for channel, count in found.ready.items():
            self._probes += 1
            opening = self._breakers.openings(
                channel,
                count,
                looks=looks,
                held=list(found.holds),
                room=room,
                names=[f"{self._sender}-{self._probes}-{number}" for number in range(count)],
            )
            if opening.count:
                openings[channel] = opening
        return openings

    def _draw(
        self, found: rows.Ready, openings: Mapping[str, Openings]
    ) -> tuple[dict[str, Draw], list[float]]:
        """Tokens of each channel, and the monotonic times from which on more are worth asking for: a
        claim that takes long is not waited for twice."""
        draws, times = {}, []
        for channel, opening in openings.items():
            wanted = min(found.ready[channel], opening.count)
            draw = self._pace.draw(channel, wanted, senders=max(1, found.senders))
            if draw.wait_ms:
                times.append(time.monotonic() + draw.wait_ms / 1000)
            if draw.tokens:
                draws[channel] = draw
            else:
                self._breakers.give_up(channel, opening.probes)
        return draws, times

    def _claim(self, openings: Mapping[str, Openings], draws: Mapping[str, Draw]) -> list[Call]:
        counts = {channel: draw.tokens for channel, draw in draws.items()}
        try:
            with transaction.atomic():
                claims = rows.claim(self.priority, counts, seconds=LEASE_SECONDS)
                calls = _assigned(claims, openings)
                rows.assign([(call.claim, call.provider) for call in calls])
        except DATABASE_AWAY:
            calls = []  # what was committed all the same is taken up again when its lease ends
            raise
        finally:
            used = Counter(call.claim.channel for call in calls)
            taken = {call.permit.id for call in calls}
            for channel, draw in draws.items():
                self._pace.give_back(channel, draw, draw.tokens - used[channel])
                self._breakers.give_up(
                    channel, [each for each in openings[channel].probes if each[1].id not in taken]
                )
        return calls

    def _tell(self, done: Sequence[Done], settled: rows.Settled) -> None:
        attempts: Counter[tuple[str, str, str]] = Counter()
        for each in done:
            result, call = each.result, each.call
            outcome = result.outcome
            if (written := settled.written.get(result.claim.key)) is not None:
                if written.latency_ms is not None:
                    seconds = written.latency_ms / 1000
                    metrics.DELIVERY_SECONDS.labels(written.priority).observe(seconds)
            elif result.claim.key in settled.late:
                outcome = Outcome.LATE.value
                metrics.LATE_SENDS.inc()
                log.warning(
                    "late_send",
                    notification_id=result.claim.id,
                    attempt=result.claim.number,
                    provider=call.provider,
                    outcome=result.outcome,
                )
            attempts[result.claim.channel, call.provider, outcome] += 1
        for labels, count in attempts.items():
            metrics.ATTEMPTS.labels(*labels).inc(count)

    def _report(self, done: Sequence[Done]) -> None:
        outcomes: dict[str, list[BreakerOutcome]] = {}
        for each in done:
            call = each.call
            name = breaker_name(call.provider, call.claim.channel)
            if each.counts is not None:
                outcomes.setdefault(name, []).append(
                    BreakerOutcome(call.permit.id, call.permit.epoch, each.counts)
                )
            elif call.permit.probe:
                self._breakers.store.give_up(name, [call.permit.id])
        for name, reported in outcomes.items():
            self._breakers.store.report(name, reported)


def _assigned(claims: Sequence[Claim], openings: Mapping[str, Openings]) -> list[Call]:
    """Each claim with its provider: first the probes, then the one that serves the rest."""
    calls: list[Call] = []
    used: Counter[str] = Counter()
    for claim in claims:
        opening = openings[claim.channel]
        place = used[claim.channel]
        used[claim.channel] += 1
        if place < len(opening.probes):
            provider, permit = opening.probes[place]
        else:
            provider = opening.provider
            permit = Permit(f"{claim.id}:{claim.number}", opening.epoch)
        calls.append(Call(claim, provider, permit))
    return calls
