"""What is known of a relay's message by its event id: the claim in Redis, and its dead letters in RabbitMQ.

The message itself is in Kafka, where nothing can be looked up by an id; that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis

from eventsite.reports.stops import Stop
from operations import words
from operations.broker import has_run
from operations.relay_letters import LOOKED_AT, ListedRelayLetter, Unavailable, of_event
from outbox.rabbitmq.claims import ClaimSeen, claim_of, connected
from outbox.rabbitmq.policy import RelayPolicy, configured

__all__ = ["RelayTrace", "trace_of"]

_WAIT = 0.5  # for the Redis of the claims; seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayTrace:
    """`stops` and `letters` are empty where nothing is known; `notes`: what could not be looked at."""

    stops: Sequence[Stop] = ()
    letters: Sequence[ListedRelayLetter] = ()
    notes: Sequence[str] = ()


def trace_of(event_id: str) -> RelayTrace:
    """Empty where no relay has ever run. RabbitMQ is asked for its first thousand dead letters."""
    try:
        if not has_run("relay"):
            return RelayTrace()
    except (redis.RedisError, OSError):
        return RelayTrace(notes=("Redis is unavailable, so the state of the relay is unknown.",))
    policy = configured()
    notes = [
        f"Topic {policy.topic} of the relay cannot be looked up by an id; a record there has it in its"
        " header ce_id."
    ]
    stops: list[Stop] = []
    letters: list[ListedRelayLetter] = []
    try:
        if policy.dedupe and (claim := _claim(policy, event_id)):
            stops.append(_stop(claim, policy))
        notes.append(f"The relay remembers an id for {words.span(policy.dedupe_ttl)}.")
    except (redis.RedisError, OSError):
        notes.append("The Redis of the relay's claims is unavailable.")
    try:
        letters, whole = of_event(event_id)
        if not whole:
            notes.append(f"Of the relay's dead letters the first {LOOKED_AT:,} were looked at.")
    except Unavailable as error:
        notes.append(f"The relay's dead letters could not be looked at: {error}")
    stops += [_of_letter(letter) for letter in letters]
    return RelayTrace(stops=stops, letters=letters, notes=notes)


def _claim(policy: RelayPolicy, event_id: str) -> ClaimSeen | None:
    with connected(policy.dedupe_url, wait=_WAIT) as server:
        return claim_of(server, event_id, ttl=policy.dedupe_ttl)


def _stop(claim: ClaimSeen, policy: RelayPolicy) -> Stop:
    if claim.is_done:
        state, detail = "published", f"topic {policy.topic}; what comes again is dropped"
    elif claim.is_held:
        state, detail = "under way", "a relay has claimed it and sends it"
    else:
        state, detail = "waiting", "the relay that claimed it has ended: who gets it again sends it"
    return Stop(name="relay", state=state, at=_ago(claim.age), detail=detail, process="relay")


def _of_letter(letter: ListedRelayLetter) -> Stop:
    at = None if letter.age is None else _ago(letter.age)
    return Stop(name="relay", state="dead letter", at=at, detail=letter.shown, process="relay")


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)
