"""The state of a notification after an answer: pure functions, with a claim and its result
(docs/notifications.md has the contract)."""

from __future__ import annotations

import random

import msgspec
from msgspec.structs import replace

from notifications.models import Outcome, Status
from notifications.providers import message as words
from notifications.providers.message import ProviderAnswer

__all__ = [
    "LOST",
    "Claim",
    "Result",
    "backoff",
    "lapsed",
    "not_begun",
    "result_of",
]

FIRST_WAIT, FACTOR, LONGEST_WAIT, JITTER = 2.0, 4.0, 300.0, 0.2
HELD_AHEAD = 0.1  # share of a wait that is added at random, so that not all notifications come back at the same moment
LOST = "The sender ended during the call; it is unknown whether the provider accepted the message."


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A notification that this process may send until `until`, of time.monotonic()."""

    id: str
    number: int
    channel: str
    recipient: str = ""
    content: str = ""
    title: str = ""
    round: int = 0
    failures: int = 0
    attempts_allowed: int = 1
    traceparent: str = ""
    until: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        """Which attempt it is, of all."""
        return self.id, self.number

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt, another after each retry by an operator."""
        return f"{self.id}.{self.round}" if self.round else self.id


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is to be written of an attempt.

    status   of the notification from now on
    wait     seconds until it may be claimed again; None: never
    used_up  whether the attempt counts
    """

    claim: Claim
    outcome: str
    status: str
    wait: float | None = None
    waits_for: str = ""
    used_up: bool = False
    status_code: int | None = None
    latency_ms: int | None = None
    error: str | None = None
    message_id: str | None = None


def backoff(failures: int) -> float:
    """Seconds to wait after so many attempts have failed."""
    # The power is bounded: a float has an end.
    wait = min(LONGEST_WAIT, FIRST_WAIT * FACTOR ** min(max(failures - 1, 0), 20))
    return min(LONGEST_WAIT, wait * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311


def result_of(claim: Claim, answer: ProviderAnswer, *, latency_ms: int, probe: bool) -> Result:
    """What an answer means. `probe`: the call was one of a breaker that is half open; a failed one
    uses up no attempt."""
    result = Result(
        claim=claim,
        outcome=Outcome.FAILED,
        status=Status.FAILED,
        status_code=answer.status_code,
        latency_ms=latency_ms,
        error=answer.error,
    )
    if answer.verdict == words.DELIVERED:
        return replace(
            result,
            outcome=Outcome.DELIVERED,
            status=Status.DELIVERED,
            message_id=answer.message_id,
        )
    if answer.verdict == words.REFUSED:
        return replace(result, outcome=Outcome.REFUSED, used_up=True)
    if answer.verdict == words.HELD:
        spread = random.uniform(1, 1 + HELD_AHEAD)  # noqa: S311
        seconds = min(LONGEST_WAIT, answer.hold_seconds * spread)
        return _waiting(result, Outcome.HELD, seconds, "held")
    if probe:
        return _waiting(result, Outcome.HELD, 0.0, "")
    return _tried(result)


def lapsed(claim: Claim) -> Result:
    """Its lease has ended without a result: the attempt counts."""
    return _tried(Result(claim=claim, outcome=Outcome.UNKNOWN, status=Status.FAILED, error=LOST))


def not_begun(claim: Claim, reason: str) -> Result:
    """It was claimed and not sent: it waits as before."""
    return Result(claim=claim, outcome=Outcome.HELD, status=Status.PENDING, wait=0.0, error=reason)


def _waiting(result: Result, outcome: str, seconds: float, waits_for: str) -> Result:
    return replace(
        result, outcome=outcome, status=Status.PENDING, wait=seconds, waits_for=waits_for
    )


def _tried(result: Result) -> Result:
    """An attempt is used up: the next one, or none."""
    failures = result.claim.failures + 1
    if failures >= result.claim.attempts_allowed:
        return replace(result, status=Status.FAILED, used_up=True)
    waiting = _waiting(result, result.outcome, backoff(failures), "retry")
    return replace(waiting, used_up=True)
