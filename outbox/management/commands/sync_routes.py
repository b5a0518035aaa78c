"""Write the positions that new handlers of the event map start from."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from outbox import conf
from outbox.audit import new_log
from outbox.bridge import unread
from outbox.declaration import Route
from outbox.handlers import pause
from outbox.inbox import positions
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
            help="accept topics that were deleted and recreated: positions move to the end of the new log, and events that lack a receipt are published again; messages of other producers before that end are skipped",
        )
        parser.add_argument(
            "--partitions",
            action="store_true",
            help="read partitions that were added to a topic, from their beginning",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["recreated"]:
            count = new_log.adopt_recreated_topics(conf.routes(), self._states, _event_ids)
            self.stdout.write(f"{count} events published again, because their log was lost.")
        states = self._states()
        created = 0
        for route in conf.routes():
            state = states[route.topic.name]
            known = positions.topic_ids_of(route.handler, route.topic.name)
            if known - {state.topic_id}:
                raise CommandError(
                    f"Topic {route.topic.name} was deleted and recreated: handler {route.handler} has positions of topic id {known}, Kafka has {state.topic_id}. Run manage.py sync_routes --recreated, which publishes the lost events again."
                )
            created += _create(route, state, with_added=options["partitions"])
            if lacking := unread.without_position(route, state.latest):
                self.stdout.write(
                    f"{route.topic.name} has {len(state.latest)} partitions, the code expects "
                    f"{route.topic.partitions}: {route.handler} does not read {lacking}. To read "
                    f"them from their beginning run {unread.advice(route, lacking)}"
                )
        pause.register_handlers(route.handler for route in conf.routes())
        self.stdout.write(f"{created} positions created.")

    def _states(self) -> dict[str, TopicState]:
        names = [topic.name for topic in conf.topics()]
        try:
            states = admin.topic_states(names)
        except admin.KafkaUnavailable as error:
            raise CommandError(
                f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS} did not answer: {error}. "
                "Run the command again when it does."
            ) from error
        missing = [name for name in names if name not in states]
        if missing:
            raise CommandError(f"Topics {missing} do not exist: run manage.py create_topics first.")
        return states


def _create(route: Route, state: TopicState, *, with_added: bool) -> int:
    """Write positions on the declared partitions, and on added ones if `with_added` is true or the handler
    is new. Returns how many were missing."""
    if not positions.topic_ids_of(route.handler, route.topic.name):
        return positions.create_positions(route.handler, state, since=route.since)
    ours = set(range(route.topic.partitions)) & state.latest.keys()
    known = replace(
        state,
        earliest={number: state.earliest[number] for number in ours},
        latest={number: state.latest[number] for number in ours},
    )
    created = positions.create_positions(route.handler, known, since=route.since)
    if with_added:
        created += positions.create_positions(route.handler, state, since="earliest")
    return created


def _event_ids(topic: str) -> set[UUID]:
    """The ids of all events in a topic; messages of other producers may have none."""
    ids = set()
    try:
        for message in read_topic(topic):
            with suppress(ValueError):
                ids.add(UUID(message.event_id))
    except (admin.KafkaUnavailable, TimeoutError) as error:
        raise CommandError(f"{topic} cannot be read ({error}). Run the command again.") from error
    return ids
