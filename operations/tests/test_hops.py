"""Each hop of the pipeline has a rate, what waits before it and the age of the oldest, or says why it has not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection

from devtools.testing.pipeline import settles
from eventsite.celery import app
from feeds.models import FeedSlice
from notifications.models import Channel
from operations.broker import ask_redis
from operations.judge import Judge
from operations.pipeline import ask_postgres
from operations.reading import answered
from operations.running import TASKS_BEGUN
from operations.snapshot import Heard, take
from operations.tests.well import PROCESSES, process, redis
from outbox import conf, redis_client
from outbox.kafka.admin import TopicState
from outbox.models import DeadLetter, OutboxEvent
from outbox.tests.backbone_rows import HANDLER, TOPIC, TOPIC_ID, positions, published
from outbox.upkeep.gauges import Backlog
from outbox.watching import Hop

# What a hop has not, and how it says so.
WITHOUT = {
    ("pipeline", "accepted"): ({"waits", "oldest"}, "nothing waits here"),
    ("pipeline", "in Kafka"): ({"waits", "oldest"}, "is at each handler"),
    ("notifications", "made ready"): ({"done"}, "is that of the handlers ready_high"),
    ("dead letters", "written"): ({"waits", "oldest"}, "stands at its handler"),
    ("dead letters", HANDLER): ({"done"}, "is at: written"),
}
RELAY = process(
    "relay",
    relay_consuming=1.0,
    relay_kafka_up=1.0,
    relay_queue_messages=1.0,
    in_flight_events=0.0,
    events_published_total=1.0,
)
WORKER = process("worker", **{TASKS_BEGUN: 7.0})


def letter() -> None:
    DeadLetter.objects.create(
        handler=HANDLER, event_id=uuid4(), topic=TOPIC, key="k", state=DeadLetter.State.DEAD
    )


def hops() -> dict[tuple[str, str], Hop]:
    """By group and name, as the page has them. PostgreSQL is real; the others are well."""
    logs = {
        route.topic.name: TopicState(route.topic.name, TOPIC_ID, {0: 0}, {0: 9})
        for route in conf.routes()
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    heard = Heard(
        postgres=answered(ask_postgres(Backlog())),
        redis=answered(redis([*PROCESSES, WORKER, RELAY])),
        kafka=answered(logs),
    )
    shown = take(heard, Judge(settings.WIRING.alarms))
    return {(each.hop.group, each.hop.name): each.hop for each in shown.stations}


@pytest.mark.django_db(transaction=True)
def test_each_hop_has_its_three_numbers_or_says_why_it_has_not() -> None:
    positions(0)
    letter()
    found = hops()
    names = [
        *(("pipeline", name) for name in ("accepted", "outbox", "in Kafka")),
        *(("handlers", route.handler) for route in conf.routes()),
        ("feeds", "fan-out"),
        ("notifications", "made ready"),
        *(("notifications", channel) for channel in Channel.values),
        ("relay", "RabbitMQ to Kafka"),
        *(("dead letters", name) for name in ("written", HANDLER)),
        ("Celery queues", "tasks"),
    ]
    for name in names:
        missing = {key for key in ("done", "waits", "oldest") if getattr(found[name], key) is None}
        expected, words = WITHOUT.get(name, (set(), ""))
        assert missing == expected, name
        assert words in " ".join(found[name].notes)


def settle() -> None:
    published([0], status=OutboxEvent.Status.NEW)
    OutboxEvent.objects.update(status=OutboxEvent.Status.PUBLISHED)


def finish_slice() -> None:
    FeedSlice.objects.create(kind="post", author_id="ada", post_id=1)
    FeedSlice.objects.all().delete()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "work"),
    [
        (("pipeline", "outbox"), settle),
        (("feeds", "fan-out"), finish_slice),
        (("dead letters", "written"), letter),
    ],
    ids=lambda each: each[1] if isinstance(each, tuple) else "",
)
def test_what_is_done_is_counted(name: tuple[str, str], work: Callable[[], None]) -> None:
    before = hops()[name].done
    assert before is not None
    work()
    assert settles(lambda: (hops()[name].done or 0) == before + 1)


@pytest.mark.django_db(transaction=True)
def test_the_oldest_that_waits_for_each_reason_has_its_age() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO notifications (id, caller, recipient, channel, priority, content, status, expires_at,
                max_retries, created_at, updated_at, due_at, ready_at, waits_for)
            SELECT gen_random_uuid(), 'shop', 'r', 'push', 'low', 'x', 'pending', now() + interval '1 h', 2, now(),
                now(), now() + interval '1 h', now() - seconds * interval '1 s', reason
            FROM (VALUES ('retry', 400), ('held', 7000)) AS waiting (reason, seconds)
            """
        )
    notes = " ".join(hops()["notifications", "push"].notes)
    assert re.search(r"1 retry, the oldest 4\d\d s; 1 held, the oldest 7\d\d\d s", notes), notes


@pytest.fixture
def empty_queue() -> Iterator[str]:
    with redis_client.client(answers_within=5.0, connects_within=5.0) as server:
        server.delete("upkeep")
        yield "upkeep"
        server.delete("upkeep")


def test_the_oldest_task_of_a_queue_has_its_age(
    empty_queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert empty_queue not in ask_redis().oldest
    now = time.time()
    for ago in (100, 50):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda ago=ago: now - ago)
            app.send_task("of.nobody", queue=empty_queue)
    assert ask_redis().oldest[empty_queue] >= 100
    with redis_client.client(answers_within=5.0, connects_within=5.0) as server:
        server.rpush(empty_queue, "no message of ours")
    assert empty_queue not in ask_redis().oldest
