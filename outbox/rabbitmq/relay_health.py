"""What a relay's /health and /readyz say, and its heartbeat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from prometheus_client.metrics import MetricWrapperBase

from outbox.process.health import ReadinessAnswer
from outbox.rabbitmq import metrics
from outbox.rabbitmq.relay import Relay

__all__ = ["ALIASES", "RelayProgress", "figures", "readiness_of"]

# Paths of the program that the relay replaces, and of Kubernetes' custom.
ALIASES = {"/healthz": "/health", "/readyz": "/health/ready"}
_NEEDED = frozenset({"rabbitmq", "kafka"})
_METRICS: tuple[MetricWrapperBase, ...] = (
    metrics.PUBLISHED,
    metrics.IN_FLIGHT,
    metrics.OLDEST,
    metrics.CONSUMING,
    metrics.KAFKA_UP,
    metrics.LETTERS_WAITING,
    metrics.QUEUED,
    metrics.LETTERS_QUEUED,
    metrics.CANARY_AGE,
)


def figures() -> Mapping[str, float]:
    """Series -> its value in this process, where it is known; of all labels together. It needs no PostgreSQL, so nobody else knows them."""
    found: dict[str, float] = {}
    for metric in _METRICS:
        for family in metric.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created") and math.isfinite(sample.value):
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def readiness_of(relay: Relay) -> Callable[[], ReadinessAnswer]:
    """Not ready while RabbitMQ or Kafka is unavailable or the breaker is open; degraded without Redis."""

    def readiness() -> ReadinessAnswer:
        well = {
            "rabbitmq": relay.rabbitmq_is_well,
            "kafka": relay.kafka.is_well and relay.kafka.wants_more,
            "redis": relay.dedupe_is_well,
        }
        return ReadinessAnswer(
            {name: "healthy" if is_well else "unhealthy" for name, is_well in well.items()},
            needed=_NEEDED,
        )

    return readiness


class RelayProgress:
    """Whether the loop has looked around since the watchdog's last look. It bounds its own stop."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._seen = -1

    def stands_still(self) -> bool:
        seen, self._seen = self._seen, self._relay.looks
        return seen == self._seen

    def is_stopping(self) -> bool:
        """Never: a stop that waits for Kafka has all of its ten seconds."""
        return False
