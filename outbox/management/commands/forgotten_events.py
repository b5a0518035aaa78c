"""What was committed after the point that a database was restored to, as far as Kafka shows."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outbox import conf
from outbox.audit.forgotten import forgotten
from outbox.kafka.admin import KafkaUnavailable


class Command(BaseCommand):
    """Reads every topic from end to end and changes nothing. Events that were committed after the
    point and not published are in neither."""

    help = "Names the events of this system that Kafka holds and the outbox does not."

    def add_arguments(self, parser: ArgumentParser) -> None:
        known = [topic.name for topic in conf.topics()]
        parser.add_argument("--topic", action="append", choices=known, help="default: all")
        parser.add_argument("--json", action="store_true", help="one JSON object per line")

    def handle(self, *args: Any, **options: Any) -> None:
        count = 0
        for topic in options["topic"] or [topic.name for topic in conf.topics()]:
            try:
                for event in forgotten(topic):
                    count += 1
                    self.stdout.write(
                        json.dumps(
                            {
                                "topic": topic,
                                "type": event.type,
                                "key": event.key,
                                "event_id": str(event.event_id),
                                "time": event.time,
                            }
                        )
                        if options["json"]
                        else f"{event.time} {topic} {event.type} {event.event_id} key {event.key}"
                    )
            except (KafkaUnavailable, TimeoutError) as error:
                raise CommandError(
                    f"{topic} cannot be read ({error}). Run the command again."
                ) from error
        if not options["json"]:
            self.stdout.write(
                f"{count} events are in Kafka and not in the outbox."
                if count
                else "The outbox holds every event of this system that Kafka holds."
            )
