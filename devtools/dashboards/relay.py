"""The relay from RabbitMQ to Kafka, and RabbitMQ itself."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import bound_of, dashboard, lines, number, quantile, rate

__all__ = ["made"]


def made() -> Dashboard:
    """Deliveries, what Kafka acknowledges, what becomes a dead letter."""
    return dashboard(
        "relay",
        "Relay",
        "RabbitMQ to Kafka: no message is dropped, duplicates are left out, dead letters are shown by kind.",
        [
            number(
                "Relayed, a minute",
                "Messages that Kafka has acknowledged.",
                rate("events_published_total", times=60),
            ),
            number(
                "Oldest in hand",
                "Age of the oldest delivery that the relay has not acknowledged to RabbitMQ.",
                "max(oldest_unacked_seconds)",
                unit="s",
                bound=bound_of("RelayOldestUnacked"),
            ),
            number("Relays that consume", "0: no relay takes messages.", "sum(relay_consuming)"),
            number(
                "Kafka", "1 while Kafka takes the messages of every relay.", "min(relay_kafka_up)"
            ),
            lines(
                "Messages",
                "Messages per second: taken from RabbitMQ, in Kafka, dropped as duplicates, sent again after a"
                " refusal.",
                ("taken", rate("events_consumed_total")),
                ("in Kafka", rate("events_published_total")),
                ("repetitions", rate("duplicates_dropped_total")),
                ("sent again", rate("retry_attempts_total")),
                ("in doubt, sent again", rate("relay_in_doubt_total")),
            ),
            lines(
                "Delivery to Kafka",
                "Time for the oldest message of each round of reports.",
                ("50 %", quantile(0.5, "processing_duration_seconds")),
                ("99 %", quantile(0.99, "processing_duration_seconds")),
                unit="s",
            ),
            lines(
                "In hand",
                "Messages in flight to Kafka, claimed by another relay, waiting to become dead letters.",
                ("in flight", "sum(in_flight_events)"),
                ("claimed by another relay", "sum(relay_busy_events)"),
                ("for the dead-letter exchange", "sum(relay_dead_letters_waiting)"),
            ),
            lines(
                "Dead letters",
                "Dead letters per second, by kind, and those that RabbitMQ did not take.",
                ("{{kind}}", rate("dead_letter_total", "kind")),
                ("refused", rate("relay_dead_letters_refused_total")),
            ),
            lines(
                "Breaker and dedupe",
                "The breaker around Kafka (0 closed, 1 half open, 2 open); messages a second without"
                " Redis.",
                ("breaker", "max(circuit_breaker_state)"),
                ("without Redis", rate("dedupe_unavailable_total")),
            ),
            lines(
                "Waiting in RabbitMQ",
                "Messages in the relay's queue and in its dead-letter queue, as the relay counts them.",
                ("queue", "max(relay_queue_messages)"),
                ("dead-letter queue", "max(relay_dead_letter_queue_messages)"),
            ),
            lines(
                "Canary",
                "Age of the newest canary that came from RabbitMQ to Kafka; one is sent every minute.",
                ("age", "min(relay_canary_age_seconds)"),
                unit="s",
                bound=bound_of("RelayCanaryLate"),
            ),
            lines(
                "RabbitMQ: messages",
                "Messages in the queues, as RabbitMQ reports them.",
                ("ready", "sum(rabbitmq_queue_messages_ready)"),
                ("delivered, not acknowledged", "sum(rabbitmq_queue_messages_unacked)"),
            ),
        ],
    )
