"""Every metric of the relay; the names are those of the program that it replaces."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CONSUMED = Counter("events_consumed_total", "Deliveries taken from RabbitMQ, redeliveries too.")
PUBLISHED = Counter(
    "events_published_total", "Messages that Kafka has acknowledged; canaries are not counted."
)
RETRIES = Counter("retry_attempts_total", "Messages sent alone again after Kafka refused them.")
DEAD_LETTERS = Counter(
    "dead_letter_total",
    "Messages that RabbitMQ has confirmed in the dead-letter queue, by the kind of their fault.",
    ["kind"],
)
KINDS = ("unreadable", "encoding", "too_large", "refused", "reused", "delivered_too_often")
for _kind in KINDS:
    DEAD_LETTERS.labels(_kind)  # shown as 0, so that the first one is a rise
LETTERS_REFUSED = Counter(
    "relay_dead_letters_refused_total",
    "Dead letters that the dead-letter exchange did not take; they stay in their own queue.",
)
LETTERS_WAITING = Gauge(
    "relay_dead_letters_waiting",
    "Messages in hand that wait for the dead-letter exchange.",
    multiprocess_mode="livesum",
)
QUEUED = Gauge(
    "relay_queue_messages",
    "Messages that lie ready in the relay's queue; NaN while RabbitMQ does not say.",
    multiprocess_mode="livemax",
)
LETTERS_QUEUED = Gauge(
    "relay_dead_letter_queue_messages",
    "Messages in the relay's dead-letter queue; NaN while RabbitMQ does not say.",
    multiprocess_mode="livemax",
)
PROCESSING = Histogram(
    "processing_duration_seconds",
    "From a delivery to Kafka's acknowledgement, of the oldest message of each round of reports.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
IN_FLIGHT = Gauge(
    "in_flight_events",
    "Messages handed to Kafka's client and not acknowledged.",
    multiprocess_mode="livesum",
)
BREAKER = Gauge(
    "circuit_breaker_state",
    "The breaker around Kafka: 0 closed, 1 half open, 2 open.",
    multiprocess_mode="livemax",
)
DUPLICATES = Counter(
    "duplicates_dropped_total",
    "Deliveries of an event that Kafka already had; the relay only acknowledged them.",
)
DEDUPE_AWAY = Counter(
    "dedupe_unavailable_total", "Messages sent or marked without Redis, which did not answer."
)
CANARY_AGE = Gauge(
    "relay_canary_age_seconds",
    "Age of the newest canary that has come from RabbitMQ to Kafka here; NaN while none is sent.",
    multiprocess_mode="livemin",
)
BUSY = Gauge(
    "relay_busy_events",
    "Messages in hand whose event id another relay has claimed.",
    multiprocess_mode="livesum",
)
IN_DOUBT = Counter(
    "relay_in_doubt_total",
    "Messages sent again by a new producer although the old one may have written them.",
)
OLDEST = Gauge(
    "oldest_unacked_seconds",
    "Age of the oldest delivery in hand.",
    multiprocess_mode="livemax",
)
CONSUMING = Gauge(
    "relay_consuming", "1 while messages may come from RabbitMQ.", multiprocess_mode="livesum"
)
KAFKA_UP = Gauge(
    "relay_kafka_up",
    "1 while Kafka answers, has the topic, and takes what is sent.",
    multiprocess_mode="livemin",
)
