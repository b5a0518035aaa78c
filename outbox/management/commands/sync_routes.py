"""Write the positions that new handlers of the event map start from."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from outbox import conf, control, inbox, recreated
from outbox.kafka import admin
from outbox.kafka.admin import TopicState
from outbox.kafka.log_reader import read_topic


class Command(BaseCommand):
    """Run once per deployment, after create_topics and before the bridges start."""

    help = "Creates missing bridge positions; existing ones are never moved without --recreated."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--recreated",
            action="store_true",
            help="accept topics that were deleted and made anew: positions go to the end of the new "
            "log, and events without every receipt are published again behind it; messages of "
            "others that it holds by then are skipped",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["recreated"]:
            count = recreated.adopt_recreated_topics(conf.routes(), self._states, _event_ids)
            self.stdout.write(f"{count} events published again, their log was lost.")
        states = self._states()
        created = 0
        for route in conf.routes():
            state = states[route.topic.name]
            known = inbox.topic_ids_of(route.handler, route.topic.name)
            if known - {state.topic_id}:
                raise CommandError(
                    f"Topic {route.topic.name} was deleted and made anew: handler {route.handler} "
                    f"has positions of {known}, Kafka has {state.topic_id}. Messages that were "
                    "only in the old log are repaired by: manage.py sync_routes --recreated"
                )
            created += inbox.create_positions(route.handler, state, since=route.since)
        control.register_handlers(route.handler for route in conf.routes())
        self.stdout.write(f"{created} positions created.")

    def _states(self) -> dict[str, TopicState]:
        names = [topic.name for topic in conf.topics()]
        try:
            states = admin.topic_states(names)
        except admin.KafkaUnavailable as error:
            raise CommandError(f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}: {error}") from error
        missing = [name for name in names if name not in states]
        if missing:
            raise CommandError(f"Topics {missing} do not exist: run manage.py create_topics first.")
        return states


def _event_ids(topic: str) -> set[UUID]:
    """Of all that a topic holds; messages of others may have none."""
    ids = set()
    try:
        for message in read_topic(topic):
            with suppress(ValueError):
                ids.add(UUID(message.event_id))
    except (admin.KafkaUnavailable, TimeoutError) as error:
        raise CommandError(f"{topic} cannot be read ({error}): run it again.") from error
    return ids
