"""What Redis has done and we do not know of: done once, or such that twice does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings
from kombu.exceptions import OperationalError

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.testing.lost_answers import LosingProxy, losing_answers
from devtools.testing.pipeline import settles
from devtools.testing.processes import running_together, spec_of
from eventsite.celery import app
from outbox import redis_client
from outbox.drain.run import Drain
from outbox.models import InboxReceipt
from outbox.publish import nudge

SERVER = settings.REDIS_URL


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(SERVER) as client:
        client.delete("outbox", "outbox:nudge", "probe")
        yield client
        client.delete("outbox", "outbox:nudge", "probe")


@pytest.fixture
def proxy() -> Iterator[LosingProxy]:
    parts = urlsplit(SERVER)
    with losing_answers(parts.hostname or "", parts.port or 6379) as between:
        yield between


@pytest.fixture
def url(proxy: LosingProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


@pytest.fixture
def ours(url: str, settings: Any) -> Iterator[None]:
    """Our own clients go by the proxy; Celery's do not."""
    settings.REDIS_URL = url
    nudge._redis.cache_clear()
    redis_client.shared.cache_clear()
    yield
    nudge._redis.cache_clear()
    redis_client.shared.cache_clear()


@pytest.mark.usefixtures("ours")
def test_a_nudge_is_sent_once(proxy: LosingProxy, server: redis.Redis) -> None:
    """Its key is there already when it is asked for again, and is its own."""
    proxy.lose(b"outbox:nudge")
    nudge._send()
    assert (proxy.lost, server.llen("outbox")) == (1, 1)
    nudge._send()  # somebody else's, with the first one still waiting
    assert server.llen("outbox") == 1


@pytest.mark.usefixtures("ours")
def test_nudges_are_held_and_let_go_again(proxy: LosingProxy, server: redis.Redis) -> None:
    proxy.lose(b"outbox:nudge")
    assert nudge.hold_nudges()
    assert (proxy.lost, server.exists("outbox:nudge")) == (1, 1)
    proxy.lose(b"outbox:nudge")
    nudge.take_nudge()
    assert (proxy.lost, server.exists("outbox:nudge")) == (1, 0)


@pytest.mark.usefixtures("server")
def test_a_task_is_put_on_its_queue_once(proxy: LosingProxy, url: str, server: redis.Redis) -> None:
    """Whoever sends learns that it may have failed, at once, and decides."""
    with app.connection_for_write(url) as connection, app.amqp.Producer(connection) as producer:
        connection.connect()
        proxy.lose(b"LPUSH", times=20)
        with pytest.raises((OperationalError, redis.ConnectionError)):
            app.send_task(
                "probe.append_entries",
                kwargs={"chunks": []},
                queue="probe",
                producer=producer,
                retry=False,
            )
    assert (proxy.lost, server.llen("probe")) == (1, 1)


@pytest.mark.usefixtures("pipeline")
def test_a_chunk_that_is_there_twice_has_its_effect_once(proxy: LosingProxy, url: str) -> None:
    """The bridge sends it again, because it does not know."""
    bridge = spec_of("bridge", REDIS_URL=url)
    with running_together([bridge, spec_of("worker-effects")]):
        proxy.lose(b"LPUSH")
        events = probe_services.draw([f"key-{number}" for number in range(8)])
        Drain().run()
        assert settles(lambda: proxy.lost == 1 and InboxReceipt.objects.count() == len(events))
    assert probe_queries.verdict().ok
