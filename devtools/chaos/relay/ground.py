"""What a scenario of the relay stands on: relays, its queue and topic, the servers to break."""

from __future__ import annotations

import itertools
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path

import redis

from devtools.chaos.ground import GroundError
from devtools.localstack import LocalStack, Unit
from devtools.localstack.ports import Ports
from devtools.localstack.probes import http_answers
from devtools.relay import broker
from devtools.relay.messages import Message, numbered
from outbox.rabbitmq.policy import RelayPolicy

__all__ = ["RelayGround"]

SETTLES_WITHIN = 60.0


@dataclass(slots=True)
class RelayGround:
    """`sent` is in the order of the queue; `allowed` are the duplicates that a scenario explains;
    `one_relay`: whether order is promised; `mutants` are broken in every relay it starts."""

    stack: LocalStack
    policy: RelayPolicy
    directory: Path
    quick: bool
    say: Callable[[str], None]
    mutants: str = ""
    sent: list[Message] = field(default_factory=list)
    allowed: int = 0
    one_relay: bool = True
    repeated: int = 0  # copies that were sent on purpose
    most_deliveries: int | None = None
    broken: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    cleanup: ExitStack = field(default_factory=ExitStack)
    units: list[Unit] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def relay(self, **environment: str) -> Unit:
        """One more relay of this scenario's queue, up and consuming as soon as it can."""
        program = self.stack.process("relay").program
        name = f"relay-{self.policy.queue}-{next(self._numbers)}"
        port = Ports(self.stack.state.ports).choose(name)
        metrics = self.directory / f"metrics-{name}"
        metrics.mkdir()
        health = f"http://127.0.0.1:{port}/health"
        own = {
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            "METRICS_PORT": str(port),
            "RABBITMQ_QUEUE": self.policy.queue,
            "KAFKA_TOPIC": self.policy.topic,
            "DEDUPE": "on" if self.policy.dedupe else "off",
            "CHAOS_MUTANTS": self.mutants,
        }
        unit = Unit(
            replace(
                program,
                name=name,
                environment={**program.environment, **own, **environment},
                port=port,
                probe=partial(http_answers, health),
                health=health,
                before_start=lambda: None,
                log=program.log.with_name(f"{name}.log"),
            )
        )
        unit.start()
        unit.wait_ready()
        self.units.append(unit)
        self.cleanup.callback(unit.stop)
        return unit

    def publish(self, count: int, *others: Message, rate: float = 0.0) -> None:
        """So many numbered messages more, and others in the middle of them."""
        begin = len(self.sent)
        good = [numbered(self.policy.queue, number) for number in range(begin, begin + count)]
        messages = [*good[: count // 2], *others, *good[count // 2 :]]
        self.sent += messages
        broker.publish(self.policy.url, self.policy.queue, messages, rate=rate)

    def depth(self) -> int:
        """Messages that no relay has in hand."""
        return broker.depth(self.policy.url, self.policy.queue)

    def wait(self, condition: Callable[[], object], what: str, within: float = 60.0) -> None:
        """Raises GroundError."""
        give_up = time.monotonic() + within
        while not condition():
            if time.monotonic() > give_up:
                raise GroundError(f"{what}: not within {within:.0f} s")
            time.sleep(0.02)

    def demand(self, holds: bool, otherwise: str) -> None:
        """A condition of this scenario beside the invariants."""
        if not holds:
            self.broken.append(otherwise)

    def metric(self, name: str) -> float:
        """Summed over the relays that answer."""
        return sum(_metric(unit, name) for unit in self.units if unit.is_alive())

    def settle(self, within: float = SETTLES_WITHIN) -> None:
        """Until every message has an end: the queue is empty and no relay has anything in hand."""

        def settled() -> bool:
            return (
                not self.depth()
                and not self.metric("in_flight_events")
                and not self.metric("relay_busy_events")
                and not self.metric("relay_dead_letters_waiting")
                and self.metric("oldest_unacked_seconds") == 0
            )

        try:
            self.wait(settled, "settled", within)
            time.sleep(1.2)  # the metrics are a second old
            self.wait(settled, "settled", within)
        except GroundError as error:
            self.broken.append(str(error))
        self.figures["deliveries"] = f"{self.metric('events_consumed_total'):.0f}"
        if self.most_deliveries is not None:
            taken = self.metric("events_consumed_total")
            if taken > self.most_deliveries:
                self.broken.append(f"{taken:.0f} deliveries, at most {self.most_deliveries} wanted")

    def stop_relays(self) -> None:
        """As by SIGTERM; each must end by itself."""
        for unit in self.units:
            if unit.is_alive():
                unit.stop(12.0)
                if unit.last_end is not None and unit.last_end[1] != 0:
                    self.broken.append(f"{unit.name} ended with {unit.last_end[1]} at its stop")
        self.units.clear()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP to a server until the end of the block."""
        unit = self.stack.server(name)
        unit.pause()
        try:
            yield
        finally:
            unit.resume()

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """A server killed until the end of the block."""
        unit = self.stack.server(name)
        unit.wanted = False
        unit.kill()
        try:
            yield
        finally:
            unit.start()
            unit.wait_ready()

    def redis(self) -> redis.Redis:
        """A client of the Redis of the claims."""
        return redis.Redis.from_url(self.policy.dedupe_url, socket_timeout=3)


def _metric(unit: Unit, name: str) -> float:
    url = f"http://127.0.0.1:{unit.program.port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            lines = answer.read().decode().splitlines()
    except (OSError, HTTPException):
        return float("inf")  # nobody knows: nothing is settled then
    values = [line for line in lines if line.partition("{")[0].partition(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in values)
