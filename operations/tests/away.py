"""A web process of operators with its servers behind proxies, for tests that take the servers away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.db import connection

from devtools.testing.heartbeats import forget_heartbeats
from devtools.testing.pipeline import settles
from devtools.testing.processes import child_environment, free_port
from devtools.testing.weather import Fault, Proxy, proxy_to
from devtools.testing.web import Web, web_process
from operations.tests.conftest import TOKEN
from outbox.process.heartbeat import processes_seen

__all__ = ["ANSWERED_WITHIN", "BEARER", "Weather", "weathered"]

ANSWERED_WITHIN = 2.0  # the contract's, on a machine that has time for it
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Weather:
    """A web process, and what lies between it and its servers; Kafka is not there at all."""

    web: Web
    postgres: Proxy
    redis: Proxy

    def clear(self) -> None:
        self.postgres.set(Fault.NONE)
        self.redis.set(Fault.NONE)

    @property
    def row(self) -> bytes:
        """What the page's table of processes says of this process alone."""
        return f"pid {self.web.process.pid} on".encode()


@contextmanager
def weathered() -> Iterator[Weather]:
    """A process that nobody has looked at yet, and whose heartbeat is in Redis, alone."""
    forget_heartbeats()
    database, broker = connection.settings_dict, urlsplit(settings.REDIS_URL)
    with (
        proxy_to(database["HOST"], int(database["PORT"])) as postgres,
        proxy_to(str(broker.hostname), int(broker.port or 6379)) as between,
    ):
        url = child_environment()["DATABASE_URL"]
        with web_process(
            DATABASE_URL=url.replace(f":{database['PORT']}/", f":{postgres.port}/"),
            REDIS_URL=f"redis://127.0.0.1:{between.port}/0",
            KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
            OPS_TOKEN=TOKEN,
        ) as web:
            with redis.Redis.from_url(settings.REDIS_URL) as server:
                assert settles(
                    lambda: web.process.pid in {each.said.pid for each in processes_seen(server)}
                )
            yield Weather(web, postgres, between)
