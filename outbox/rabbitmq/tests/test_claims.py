"""Who sends an event id, on a real Redis: claims, marks, releases and leases of several owners."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from devtools.testing.relay import forget_claims, until
from outbox.rabbitmq.claims import ClaimOutcome, EventClaims, OwnerLease, connected

DAY = 24 * 3600.0
FIRST, OTHER = ("1", "digest of a payload"), ("1", "digest of another")


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    forget_claims()
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        yield server


def claims(server: redis.Redis, owner: str) -> EventClaims:
    return EventClaims(server, owner, ttl=DAY, pause=1.0)


def leased(server: redis.Redis, owner: str) -> EventClaims:
    server.set(f"relay:owner:{owner}", 1, px=60_000)
    return claims(server, owner)


def test_what_a_claim_finds(server: redis.Redis) -> None:
    mine, other = leased(server, "me"), leased(server, "other")
    assert mine.claim([FIRST]) == [ClaimOutcome.MINE]
    assert server.get("event:1") == b"claimed me"
    assert mine.claim([FIRST]) == [ClaimOutcome.MINE], (
        "it may be asked again, as by a client that repeats"
    )
    assert other.claim([FIRST]) == [ClaimOutcome.BUSY]
    server.delete("relay:owner:me")  # its lease has ended
    assert other.claim([FIRST, ("2", "")]) == [ClaimOutcome.MINE, ClaimOutcome.MINE]
    assert other.mark_done([FIRST])
    assert mine.claim([FIRST, OTHER, ("2", "")]) == [
        ClaimOutcome.DUPLICATE,
        ClaimOutcome.REUSED,
        ClaimOutcome.BUSY,
    ]


def test_what_is_done_is_known_for_a_day(server: redis.Redis) -> None:
    assert claims(server, "me").mark_done([FIRST])
    assert DAY - 60 < server.pttl("event:1") / 1000 <= DAY
    assert server.get("event:1") == f"done {FIRST[1]}".encode()


def test_a_claim_is_given_up_by_its_owner_alone(server: redis.Redis) -> None:
    mine, other = leased(server, "me"), leased(server, "other")
    mine.claim([FIRST, ("2", "")])
    mine.mark_done([("2", "")])
    assert other.release(["1"])
    assert mine.release(["2"])
    assert other.claim([FIRST, ("2", "")]) == [ClaimOutcome.BUSY, ClaimOutcome.DUPLICATE]
    assert mine.release(["1"])
    assert other.claim([FIRST]) == [ClaimOutcome.MINE]


def test_a_lease_lasts_as_long_as_its_process(server: redis.Redis) -> None:
    lease = OwnerLease(connected(settings.REDIS_URL, wait=1.0), "living", seconds=2.0, every=0.05)
    lease.start()
    begun = lease.renewed_at
    until(lambda: lease.renewed_at > begun + 2.5, "it was renewed for longer than it lasts")
    assert 0 < server.pttl("relay:owner:living") <= 2000
    lease.end()
    assert not server.exists("relay:owner:living")
