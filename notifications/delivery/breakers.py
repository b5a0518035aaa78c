"""The breakers around providers, one for each provider and channel."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import redis

from notifications import metrics
from notifications.providers.configured import breaker_name, in_order, providers_of
from outbox.breaker import machine
from outbox.breaker.machine import BreakerRule, Permit
from outbox.breaker.store import BreakerLook, BreakerStore

__all__ = ["RULE", "Breakers", "Openings"]

# The contract: five in a row and half of the last twenty; 30 s; three probes.
RULE = BreakerRule(
    in_a_row=5, at_least=5, share=0.5, window=20, open_seconds=30.0, probes=3, place_seconds=15.0
)
PREFIX = "notifications:breaker:"
STATES = {machine.CLOSED: 0, machine.HALF_OPEN: 1, machine.OPEN: 2}


class Openings(msgspec.Struct, frozen=True):
    """Through which providers a channel can be served, in this order: first the probes that were
    permitted, then everything else through `provider` (empty: nobody)."""

    probes: Sequence[tuple[str, Permit]] = ()
    provider: str = ""
    epoch: int = 0
    room: int = 0

    @property
    def count(self) -> int:
        """Messages that can be sent."""
        return len(self.probes) + self.room


class Breakers:
    """Belongs to one thread."""

    def __init__(self, *, server: redis.Redis | None = None) -> None:
        self.store = BreakerStore(PREFIX, RULE, server=server, opened=_count_opened)

    def look(self) -> dict[str, BreakerLook]:
        """All of them, by breaker name."""
        return self.store.look([breaker_name(*each) for each in providers_of()])

    def openings(
        self,
        channel: str,
        wanted: int,
        *,
        looks: dict[str, BreakerLook],
        held: Sequence[tuple[str, str]],
        room: dict[tuple[str, str], int],
        names: Sequence[str],
    ) -> Openings:
        """How up to `wanted` messages can go. An open breaker leads to the next provider; one that
        asked to wait is waited for. `room`: how many more a provider may have under way; `names`:
        ids for probes."""
        probes: list[tuple[str, Permit]] = []
        for provider, _ in in_order(channel):
            name = breaker_name(provider, channel)
            look = looks[name]
            if look.phase == machine.OPEN:
                continue
            if (provider, channel) in held:
                break
            left = min(wanted - len(probes), room[provider, channel])
            if look.phase == machine.CLOSED:
                return Openings(probes, provider, look.epoch, max(0, left))
            if left > 0:
                asked = names[len(probes) : len(probes) + min(left, RULE.probes)]
                probes += [(provider, permit) for permit in self.store.ask(name, asked)]
        return Openings(probes)

    def give_up(self, channel: str, probes: Sequence[tuple[str, Permit]]) -> None:
        """Probes that were permitted and are not made."""
        for provider, permit in probes:
            if permit.probe:
                self.store.give_up(breaker_name(provider, channel), [permit.id])


def _count_opened(name: str) -> None:
    provider, _, channel = name.rpartition(":")
    metrics.BREAKER_OPENED.labels(provider, channel).inc()
