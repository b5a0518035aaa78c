"""Which broken guard of the relay must be seen under which scenario, and as what damage."""

from __future__ import annotations

from dataclasses import dataclass

from devtools.chaos.relay.run import RelayStage
from devtools.chaos.relay.scenarios import SCENARIOS
from devtools.chaos.run import ScenarioResult

__all__ = ["MUTANTS", "RelayMutant", "play_mutant"]


@dataclass(frozen=True, slots=True)
class RelayMutant:
    """`name` is one of misbehave.BREAKS; `invariant` is what must be damaged, or `besides`: a demand of
    the scenario itself."""

    name: str
    title: str
    scenario: str
    invariant: str


MUTANTS = (
    RelayMutant("relay-ack-first", "acknowledged before Kafka's report", "relay-dies-sent", "M1"),
    RelayMutant("relay-mark-first", "marked before Kafka's report", "relay-dies-claimed", "M1"),
    RelayMutant("relay-without-owner", "a claim without its owner", "relay-twins", "M4"),
    RelayMutant("relay-lease-unasked", "taken over without a look", "relay-twins", "M4"),
    RelayMutant("relay-old-tag", "the old tag is kept", "relay-lost-tags", "any"),
    RelayMutant("relay-letter-unconfirmed", "no confirmation", "relay-letters-refused", "M1"),
    RelayMutant("relay-requeue", "sent back instead of waiting", "relay-kafka-frozen", "besides"),
    RelayMutant("relay-purge", "purged when Kafka is silent", "relay-kafka-frozen", "M4"),
)


def play_mutant(stage: RelayStage, mutant: RelayMutant) -> ScenarioResult:
    """Its scenario with the guard broken; `ok` if the damage was seen where it was announced."""
    [scenario] = [scenario for scenario in SCENARIOS if scenario.name == mutant.scenario]
    result = stage.play(scenario, mutants=mutant.name)
    damaged = {verdict.invariant for verdict in result.verdicts if not verdict.ok}
    demands, result.broken = result.broken, []
    seen = {
        "besides": bool(demands),
        "any": bool(demands or damaged),
    }.get(mutant.invariant, mutant.invariant in damaged)
    result.expected = dict.fromkeys(damaged, f"the mutant {mutant.name}")
    result.mutant, result.announced, result.title = mutant.name, mutant.invariant, mutant.title
    if demands:
        result.figures["demands"] = "; ".join(demands)
    if not seen:
        result.broken.append(f"{mutant.invariant} should be damaged; seen: {sorted(damaged)}")
    return result
