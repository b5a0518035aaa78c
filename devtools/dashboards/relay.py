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
        "RabbitMQ to Kafka: nothing dropped, repetitions left out, dead letters by the kind of their fault.",
        [
            number(
                "Relayed, a minute",
                "Messages that Kafka has acknowledged.",
                rate("events_published_total", times=60),
            ),
            number(
                "Oldest in hand",
                "Delivered by RabbitMQ and not acknowledged to it.",
                "max(oldest_unacked_seconds)",
                unit="s",
                bound=bound_of("RelayOldestUnacked"),
            ),
            number("Relays that consume", "0: nothing comes.", "sum(relay_consuming)"),
            number("Kafka", "1 while it takes what every relay sends.", "min(relay_kafka_up)"),
            lines(
                "Messages",
                "A second: taken from RabbitMQ, in Kafka, dropped as repetitions, sent again after a"
                " refusal.",
                ("taken", rate("events_consumed_total")),
                ("in Kafka", rate("events_published_total")),
                ("repetitions", rate("duplicates_dropped_total")),
                ("sent again", rate("retry_attempts_total")),
                ("in doubt, sent again", rate("relay_in_doubt_total")),
            ),
            lines(
                "Delivery to Kafka",
                "Of the oldest message of each round of reports.",
                ("50 %", quantile(0.5, "processing_duration_seconds")),
                ("99 %", quantile(0.99, "processing_duration_seconds")),
                unit="s",
            ),
            lines(
                "In hand",
                "On their way to Kafka, claimed by another relay, waiting to become dead letters.",
                ("on their way", "sum(in_flight_events)"),
                ("of another relay", "sum(relay_busy_events)"),
                ("for the dead-letter exchange", "sum(relay_dead_letters_waiting)"),
            ),
            lines(
                "Dead letters",
                "A second, by the kind of their fault, and those that were not taken.",
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
                "RabbitMQ: messages",
                "In its queues, by what RabbitMQ says itself.",
                ("ready", "sum(rabbitmq_queue_messages_ready)"),
                ("delivered, not acknowledged", "sum(rabbitmq_queue_messages_unacked)"),
            ),
        ],
    )
