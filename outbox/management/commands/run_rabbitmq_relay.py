"""Relay a queue of RabbitMQ to a topic of Kafka."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from outbox.kafka import admin
from outbox.process import gc_tuning, ops_server
from outbox.process.watchdog import Watchdog
from outbox.rabbitmq.policy import configured
from outbox.rabbitmq.relay import Relay
from outbox.rabbitmq.relay_health import ALIASES, RelayProgress, figures, readiness_of
from outbox.topics import Topic


class Command(BaseCommand):
    """SIGTERM finishes what is under way to Kafka, gives back the rest, then exits 0.

    It needs no PostgreSQL. A loop that has stood still for WATCHDOG_SECONDS ends the process, to be
    started again.
    """

    help = "Relays a queue of RabbitMQ to a topic of Kafka."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--create-topic",
            type=int,
            metavar="PARTITIONS",
            help="create the topic if it is missing; without this, the relay waits for it",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        policy = configured()
        if options["create_topic"]:
            # Its messages are the queue's, so its limit is Kafka's own.
            topic = Topic(
                policy.topic,
                partitions=options["create_topic"],
                max_message_bytes=admin.DEFAULT_MAX_MESSAGE_BYTES,
            )
            admin.create([topic], replication_factor=settings.KAFKA_REPLICATION_FACTOR)
        relay = Relay(policy)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: relay.request_stop())
        gc_tuning.tune_gc()
        watchdog = Watchdog("relay", RelayProgress(relay))
        watchdog.start()
        ops_server.serve_in_background(
            "relay",
            is_well=watchdog.is_well,
            ready=readiness_of(relay),
            aliases=ALIASES,
            port=settings.RELAY_PORT,
            figures=figures,
        )
        relay.run()
