"""Plays one scenario of the relay and judges what became of every message."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import redis
from rich.console import Console
from rich.table import Table

from devtools.chaos.checker import Verdict
from devtools.chaos.relay.ground import RelayGround
from devtools.chaos.relay.scenarios import RelayScenario
from devtools.chaos.run import ScenarioResult
from devtools.localstack import LocalStack
from devtools.relay import broker, evidence
from devtools.relay.account import RelayAccount, account
from outbox.kafka import admin
from outbox.rabbitmq.policy import RelayPolicy
from outbox.topics import Topic

__all__ = ["RelayStage", "print_relay_table"]

INVARIANTS = {
    "M1": "every message is in Kafka, or a dead letter, or still queued",
    "M2": "payloads are equal byte for byte",
    "M3": "one relay: first copies in each partition are in the order of the queue",
    "M4": "no duplicates but those explained",
    "M5": "dead is what cannot be relayed, with its reason, and nothing else",
}


class RelayStage:
    """A stack that is up; each scenario has a queue and a topic of its own."""

    def __init__(
        self, stack: LocalStack, directory: Path, *, quick: bool, say: Callable[[str], None]
    ) -> None:
        self._stack = stack
        self._directory = directory
        self._quick = quick
        self._say = say
        self._number = 0

    def playable(self, scenarios: Iterable[RelayScenario]) -> Iterator[RelayScenario]:
        """Without those that the stand-in for RabbitMQ cannot do, which are named."""
        is_real = "RABBITMQ_NODENAME" in self._stack.server("rabbitmq").program.environment
        for scenario in scenarios:
            if is_real or not scenario.real:
                yield scenario
            else:
                self._say(f"{scenario.name} is left out: the stand-in for RabbitMQ cannot do it")

    def play(self, scenario: RelayScenario, mutants: str = "") -> ScenarioResult:
        """Never raises for what the scenario does."""
        self._number += 1
        begin = time.monotonic()
        self._say(f"[bold]{scenario.name}[/]: {scenario.title}")
        result = ScenarioResult(scenario.name, scenario.title)
        policy = self._policy(scenario)
        ground = RelayGround(
            stack=self._stack,
            policy=policy,
            directory=self._directory,
            quick=self._quick,
            say=self._say,
            mutants=mutants,
        )
        try:
            with ground.cleanup:
                scenario.play(ground)
                ground.stop_relays()
            seen = account(ground.sent, evidence.found(policy))
            result.verdicts = _verdicts(seen, ground)
        except Exception as error:  # noqa: BLE001  (the next scenario is still to be played)
            result.broken.append(f"{type(error).__name__}: {error}")
            self._say(traceback.format_exc())
        result.broken += ground.broken
        result.figures = ground.figures
        result.seconds = round(time.monotonic() - begin, 1)
        self._tell(result)
        return result

    def _policy(self, scenario: RelayScenario) -> RelayPolicy:
        env = self._stack.env
        name = f"{scenario.name}-{self._number}"
        policy = RelayPolicy(
            url=env["RABBITMQ_URL"],
            queue=name,
            topic=name,
            dedupe_url=env["REDIS_URL"],
            dedupe=scenario.dedupe,
        )
        with redis.Redis.from_url(policy.dedupe_url) as server:
            # The same bad messages come in several scenarios: they are no repetitions.
            for key in server.scan_iter("event:*", count=10_000):
                server.delete(key)
        broker.declare(policy.url, policy.queue)
        topic = Topic(policy.topic, partitions=3, max_message_bytes=scenario.limit)
        admin.create([topic], replication_factor=1)
        return replace(policy, topic=topic.name)

    def _tell(self, result: ScenarioResult) -> None:
        self._say(
            f"  {'[green]ok[/]' if result.ok else '[bold red]FAILED[/]'} in {result.seconds} s"
        )
        for verdict in result.verdicts:
            if not verdict.ok:
                self._say(f"  DAMAGE {verdict.invariant} {verdict.title}: {verdict.damage}")
                self._say(f"      {', '.join(verdict.examples)}")
        for text in result.broken:
            self._say(f"  [red]{text}[/]")


def _verdicts(seen: RelayAccount, ground: RelayGround) -> list[Verdict]:
    reordered = seen.reordered if ground.one_relay else []
    excess = max(0, seen.duplicates + seen.letter_copies - ground.allowed)
    figures = {
        "M1": f"{seen.in_kafka} + {seen.dead} + {seen.queued}",
        "M2": "equal",
        "M3": "kept" if ground.one_relay else "-",
        "M4": f"{seen.duplicates}",
        "M5": f"{seen.dead}",
    }
    damages: dict[str, tuple[int, list[str]]] = {
        "M1": (len(seen.lost), seen.lost),
        "M2": (len(seen.altered), seen.altered),
        "M3": (len(reordered), reordered),
        "M4": (excess, [f"{seen.duplicates} in Kafka, {seen.letter_copies} dead letters"]),
        "M5": (len(seen.misplaced), seen.misplaced),
    }
    return [
        Verdict(name, title, damages[name][0], tuple(damages[name][1][:3]), figures[name])
        for name, title in INVARIANTS.items()
    ]


def print_relay_table(console: Console, results: list[ScenarioResult]) -> None:
    """One line a scenario; M1 shows what is in Kafka, what is dead, what is queued."""
    table = Table(title="What became of every message of the relay", title_justify="left")
    table.add_column("scenario")
    for name in INVARIANTS:
        table.add_column(name, justify="right")
    table.add_column("besides", overflow="fold")
    table.add_column("")
    for result in results:
        found = {verdict.invariant: verdict for verdict in result.verdicts}
        table.add_row(
            result.scenario,
            *(_cell(found.get(name)) for name in INVARIANTS),
            "; ".join([*result.broken, *(f"{k}: {v}" for k, v in result.figures.items())]),
            "ok" if result.ok else "[red]FAILED[/]",
        )
    console.print(table)


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    return verdict.figure if verdict.ok else f"[bold red]{verdict.damage} damaged[/]"
