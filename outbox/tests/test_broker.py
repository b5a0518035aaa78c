"""What goes to Celery, as it lies in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis
from celery import current_app
from django.conf import settings

from outbox import conf
from outbox.process import task_queue


@pytest.fixture
def waiting() -> Iterator[redis.Redis]:
    """Redis, without what waits for the first route's handler."""
    with redis.Redis.from_url(settings.REDIS_URL) as queues:
        queues.delete(conf.routes()[0].queue)
        yield queues
        queues.delete(conf.routes()[0].queue)


def test_chunks_lie_in_redis_compressed_and_come_out_whole(waiting: redis.Redis) -> None:
    route = conf.routes()[0]
    text = "the same again and again, " * 800
    assert task_queue.send(route, chunks=[{"payload": text}])
    assert task_queue.queue_length(route.queue) == 1
    raw = waiting.lindex(route.queue, 0)
    assert isinstance(raw, bytes)
    assert json.loads(raw)["headers"]["compression"] == task_queue.COMPRESSION
    assert len(raw) < len(text) / 5
    with current_app.connection_for_read() as connection:
        message = connection.SimpleQueue(route.queue).get(timeout=10)
        assert message.payload[1] == {"chunks": [{"payload": text}]}
        message.ack()
