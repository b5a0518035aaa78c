"""Make the topics of the event map with their partition counts."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from outbox import conf
from outbox.kafka import admin


class Command(BaseCommand):
    """Run once per deployment; never by a producer or consumer by accident."""

    help = "Creates missing Kafka topics; refuses if one exists with another number of partitions."

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = conf.all_topics()
        try:
            created = admin.create(wanted, replication_factor=settings.KAFKA_REPLICATION_FACTOR)
            states = admin.topic_states([topic.name for topic in wanted])
        except admin.KafkaUnavailable as error:
            raise CommandError(f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}: {error}") from error
        for topic in wanted:
            found = len(states[topic.name].latest)
            if found != topic.partitions:
                raise CommandError(
                    f"Topic {topic.name} has {found} partitions, the code says {topic.partitions}. "
                    "The order of a key depends on the number: drain the outbox and the topic, "
                    "delete the topic, then run create_topics and sync_routes --recreated."
                )
        self.stdout.write(
            f"{len(created)} topics created, {len(wanted) - len(created)} were there."
        )
