"""Guards of notifications, broken one at a time, as devtools/chaos/mutants.py does it for those of the
backbone."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from devtools.chaos.feed_mutants import without
from eventsite.web.status_hub import statements
from eventsite.web.status_hub.pages import LoggedChange
from eventsite.web.status_hub.reader import LogReader
from notifications import services
from notifications.delivery import breakers, pace, rows, rules, sender
from notifications.delivery.rounds import Call, Done, Rounds
from notifications.delivery.rows import Ready
from notifications.delivery.rules import Claim, Result
from notifications.providers import message as words
from notifications.providers.message import ProviderAnswer
from outbox.database.round_trips import Statement
from outbox.pacing.limiter import Draw, PacedLimiter
from restapi.status_log import StatusLog

__all__ = ["BREAKS"]


def late_results_written() -> None:
    """A result is written whoever has the row by now."""
    rows._SETTLE = without(rows._SETTLE, " AND attempt = result.number AND status = 'processing'")


def runs_go_on() -> None:
    """A run waits for its results however long it takes, beyond its leases."""
    sender.GIVE_UP_SECONDS = 3600.0


def lease_unasked() -> None:
    """What was claimed is sent, however long ago that was."""
    call_in_time = sender.DeliverySender._call

    async def call_whenever(self: sender.DeliverySender, call: Call) -> Done:
        claim = msgspec.structs.replace(call.claim, until=float("inf"))
        return await call_in_time(self, msgspec.structs.replace(call, claim=claim))

    sender.DeliverySender._call = call_whenever  # type: ignore[method-assign]


def cancel_unconditional() -> None:
    """Whatever the status is, it is cancelled."""
    services._CANCEL = without(services._CANCEL, " AND status IN ('pending', 'scheduled')")


def limiter_per_process() -> None:
    """Each process keeps to the limit by itself."""

    def of_this_process(name: str, **options: Any) -> PacedLimiter:
        return PacedLimiter(f"{name}-{os.getpid()}", **options)

    setattr(pace, "PacedLimiter", of_this_process)  # noqa: B010


def tokens_after_claim() -> None:
    """As much is claimed as there is room for; each call then waits for its token."""

    def as_much_as_wanted(
        self: Rounds, found: Ready, openings: Mapping[str, breakers.Openings]
    ) -> tuple[dict[str, Draw], list[float]]:
        wanted = {
            channel: min(found.ready[channel], opening.count)
            for channel, opening in openings.items()
        }
        return {channel: Draw(count, 0) for channel, count in wanted.items() if count}, []

    call_at_once = sender.DeliverySender._call

    async def wait_and_call(self: sender.DeliverySender, call: Call) -> Done:
        paced = self._rounds._pace
        while True:
            draw = await self._on_thread(_one_token, paced, call.claim.channel)
            if draw.tokens:
                return await call_at_once(self, call)
            await asyncio.sleep(draw.wait_ms / 1000)

    Rounds._draw = as_much_as_wanted  # type: ignore[method-assign]
    pace.Pace.give_back = lambda *_: None  # type: ignore[method-assign]
    sender.DeliverySender._call = wait_and_call  # type: ignore[method-assign]


def _one_token(paced: pace.Pace, channel: str) -> Draw:
    return paced.draw(channel, 1, senders=1)


def waiting_counts() -> None:
    """A provider that asks to wait has failed, as any other."""
    result_of = rules.result_of

    def result_as_failed(claim: Claim, answer: ProviderAnswer, **more: Any) -> Result:
        if answer.verdict == words.HELD:
            answer = msgspec.structs.replace(answer, verdict=words.FAILED)
        return result_of(claim, answer, **more)

    setattr(sender, "result_of", result_as_failed)  # noqa: B010


def breaker_by_run() -> None:
    """Five failures in a row open it, however well it went before."""
    breakers.RULE = dataclasses.replace(breakers.RULE, share=0.0, at_least=0)


def one_queue() -> None:
    """Whoever has waited longest goes first, whatever its priority."""
    for name in ("_READY", "_CLAIM"):
        setattr(rows, name, without(getattr(rows, name), "priority = %s", "%s <> ''"))


def seq_by_identity() -> None:
    """The number of a change is the one that its row was given when it was inserted."""
    number = statements.number

    def by_identity(log: StatusLog, floor: int) -> Sequence[Statement]:
        mine, (sql, parameters) = number(log, floor)
        return mine, (without(sql, "SET seq = ranked.seq", "SET seq = log.id"), parameters)

    statements.number = by_identity


def since_by_time() -> None:
    """A client that reconnects is sent what is younger than the last change it saw."""

    async def younger(self: LogReader, after: int) -> tuple[Sequence[LoggedChange], int]:
        log, last = self._log, self.last
        sql, _ = statements.rows_between(log, after, last)
        sql = without(
            sql,
            "seq > %s::bigint",
            f"{log.at} > coalesce((SELECT {log.at} FROM {log.table} WHERE seq = %s::bigint),"
            " '-infinity')",
        )
        async with self._sessions.turn() as session:
            found = await session.rows((sql, (after, last, statements.READ_AT_ONCE)))
        changes = [LoggedChange(log, seq, tuple(row)) for seq, _, *row in found]
        return changes, changes[-1].seq if len(changes) == statements.READ_AT_ONCE else last

    LogReader.missed = younger  # type: ignore[method-assign]


BREAKS: Mapping[str, Callable[[], None]] = {
    "late-results-written": late_results_written,
    "runs-go-on": runs_go_on,
    "lease-unasked": lease_unasked,
    "cancel-unconditional": cancel_unconditional,
    "limiter-per-process": limiter_per_process,
    "tokens-after-claim": tokens_after_claim,
    "waiting-counts": waiting_counts,
    "breaker-by-run": breaker_by_run,
    "one-queue": one_queue,
    "seq-by-identity": seq_by_identity,
    "since-by-time": since_by_time,
}
