"""Make the topics of the event map with their partition counts."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from outbox import conf
from outbox.kafka import admin


class Command(BaseCommand):
    """Run once per deployment; never by a producer or consumer by accident."""

    help = "Creates missing Kafka topics; refuses if one exists with fewer partitions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--alter",
            action="store_true",
            help="set the retention of existing topics to that of the code; a shorter one deletes events",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = conf.all_topics()
        try:
            created = admin.create(wanted, replication_factor=settings.KAFKA_REPLICATION_FACTOR)
            if options["alter"]:
                admin.alter_retention(wanted)
            states = admin.topic_states([topic.name for topic in wanted])
        except admin.KafkaUnavailable as error:
            raise CommandError(
                f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS} did not answer: {error}. "
                "Run the command again when it does."
            ) from error
        for topic in wanted:
            found = len(states[topic.name].latest)
            if found < topic.partitions:
                raise CommandError(
                    f"Topic {topic.name} has {found} partitions, the code expects {topic.partitions}, "
                    "and the order of a key depends on the number. Delete the topic, then run "
                    "manage.py create_topics and manage.py sync_routes --recreated, which publishes "
                    "the events again that no handler has applied. Messages of other producers in the "
                    "topic are lost unless they were applied before."
                )
        self.stdout.write(
            f"{len(created)} topics created, {len(wanted) - len(created)} existed already."
        )
