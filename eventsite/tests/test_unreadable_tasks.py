"""What a worker cannot read it drops with a critical line, and goes on: the sender sends it again."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.conf import settings

from devtools.testing.pipeline import settles
from devtools.testing.processes import Process, running, spec_of

pytestmark = pytest.mark.usefixtures("pipeline")

QUEUE = "probe"
TASK = "probe.append_entries"


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


@pytest.fixture(scope="module")
def worker(django_db_setup: None) -> Iterator[Process]:
    spec = spec_of("worker-effects", WATCHDOG_SECONDS="5")
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()  # what a killed worker of another test had in hand comes back a minute later
    with running(spec.command, spec.environment, spec.ready_url) as started:
        yield started


def envelope(body: bytes = b'[[], {"chunks": []}, {}]', **changes: Any) -> dict[str, Any]:
    """A task as kombu writes it on a Redis list; `changes` are of the message, or of its headers."""
    number = str(uuid4())
    headers = {
        "lang": "py",
        "task": TASK,
        "id": number,
        "root_id": number,
        "parent_id": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "test",
    }
    message: dict[str, Any] = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": number,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }
    for name, value in changes.items():
        place = headers if name in {*headers, "compression", "eta"} else message
        place[name.replace("content_", "content-")] = value
    return message


def without(*path: str) -> dict[str, Any]:
    message = envelope()
    place = message
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return message


def of_properties(**changes: Any) -> dict[str, Any]:
    message = envelope()
    message["properties"].update(changes)
    return message


# Each is dropped, and what the worker says of it.
UNREADABLE: dict[str, Callable[[], object]] = {
    "no bytes of a message": lambda: b"\xff\xfe\x00garbage",
    "no JSON": lambda: b"hello",
    "JSON of an unknown type": lambda: b'{"__type__": "datetime", "__value__": 7}',
    "JSON too deep": lambda: b"[" * 200_000,
    "a number": lambda: 7,
    "a list": lambda: [1, 2],
    "an empty object": dict,
    "no properties": lambda: without("properties"),
    "no delivery tag": lambda: without("properties", "delivery_tag"),
    "no delivery info": lambda: without("properties", "delivery_info"),
    "a list as delivery tag": lambda: of_properties(delivery_tag=[1]),
    "no base64": lambda: envelope() | {"body": "%%%a"},
    "unknown encoding of the body": lambda: of_properties(body_encoding="base65"),
    "headers as a list": lambda: envelope() | {"headers": [1]},
    "no headers": lambda: envelope() | {"headers": {}},
    "no id": lambda: without("headers", "id"),
    "unknown task": lambda: envelope(task="of.a.newer.version"),
    "unknown task without id": lambda: (
        without("headers", "id") | {"headers": {"task": "of.a.newer.version"}}
    ),
    "a list as task": lambda: envelope(task=["probe"]),
    "unknown serializer": lambda: envelope(content_type="application/x-of-a-newer-version"),
    "serializer that is not accepted": lambda: envelope(
        content_type="application/x-python-serialize"
    ),
    "no content type": lambda: without("content-type"),
    "no UTF-8": lambda: envelope(b"\xff\xfe"),
    "body is no JSON": lambda: envelope(b"{"),
    "body is a number": lambda: envelope(b"7"),
    "body is null": lambda: envelope(b"null"),
    "body has two parts": lambda: envelope(b"[[], {}]"),
    "no body": lambda: envelope() | {"body": None},
    "unknown compression": lambda: envelope(compression="application/of-a-newer-version"),
    "body is no zstd": lambda: envelope(compression="application/zstd"),
    "body is cut zlib": lambda: envelope(
        zlib.compress(b'[[], {"chunks": []}, {}]')[:-4], compression="application/x-gzip"
    ),
    "eta is no time": lambda: envelope(eta="tomorrow"),
    "wrong arguments": lambda: envelope(b'[[1, 2], {"chunk": []}, {}]'),
    "chunks of another shape": lambda: envelope(
        b'[[], {"chunks": [{"of": "a newer version"}]}, {}]'
    ),
    "time limits of another shape": lambda: envelope(timelimit=7),
    "time limits that are no numbers": lambda: envelope(timelimit=["soon", None]),
}


def push(broker: redis.Redis, content: object) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content)
    broker.lpush(QUEUE, data)


def complaints(said: str) -> int:
    """Lines that say what was dropped, or what a task has failed with."""
    lines = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
    return sum(line["level"] in {"warning", "error", "critical"} for line in lines)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_it_is_dropped_and_the_worker_goes_on(
    kind: str, worker: Process, broker: redis.Redis
) -> None:
    def said() -> str:
        return worker.log.read_text(errors="replace")[before:]

    before = len(worker.log.read_text(errors="replace"))
    for _ in range(3):  # more than the worker has processes
        push(broker, UNREADABLE[kind]())
    gone = settles(lambda: not broker.llen(QUEUE) and not broker.hlen("unacked"))
    assert gone, said()
    assert settles(lambda: complaints(said()) >= 3), said()
    assert worker.child.poll() is None, said()
    assert "Connection to broker lost" not in said()
