"""When a bridge looks for messages: the client is made up, and so is the clock's passing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from devtools.probe.events import PROBE_TOPIC
from devtools.testing.pipeline import PROBE_HANDLER
from outbox import conf
from outbox.bridge import bridge as bridge_module
from outbox.bridge.bridge import Bridge
from outbox.bridge.partition import Partition
from outbox.envelope import ReceivedMessage
from outbox.inbox.chunk import TaskChunk
from outbox.process import task_queue

pytestmark = pytest.mark.usefixtures("pipeline")

KEY = (PROBE_TOPIC.name, 3)


class Client:
    """Hands out the given portions, one a look."""

    def __init__(self, *portions: int) -> None:
        self.portions = list(portions)
        self.timeouts: list[float] = []
        self.offset = 0

    def receive(self, *, limit: int, limit_bytes: int, timeout: float) -> list[ReceivedMessage]:
        self.timeouts.append(timeout)
        count = self.portions.pop(0) if self.portions else 0
        self.offset += count
        return [
            ReceivedMessage(*KEY, offset, b"k", b"v", (("ce_type", b"SEQUENCE_DRAWN"),), 10)
            for offset in range(self.offset - count, self.offset)
        ]

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=found.append)
    monkeypatch.setattr(bridge_module, "time", clock)
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Events of each task."""
    found: list[int] = []

    def send(route: object, *, chunks: Sequence[TaskChunk]) -> bool:
        found.append(sum(len(chunk["events"]) for chunk in chunks))
        return True

    monkeypatch.setattr(task_queue, "send", send)
    return found


def bridge_of(client: Client) -> Bridge:
    bridge = Bridge(conf.route_named(PROBE_HANDLER), stop=threading.Event())
    bridge.group.client.close()
    bridge.group.client = client  # type: ignore[assignment]
    bridge.group.partitions[KEY] = Partition(key=KEY, topic_id=uuid4(), position=0)
    return bridge


def land(bridge: Bridge) -> None:
    """What was sent has had its effect."""
    partition = bridge.group.partitions[KEY]
    assert partition.flight
    partition.position = partition.flight.chunk.next_offset
    partition.flight = None


def test_a_lone_message_goes_at_once(slept: list[float], sent: list[int]) -> None:
    client = Client(1, 1)
    bridge = bridge_of(client)
    bridge._receive()
    bridge._dispatch.send_what_is_due()
    assert (slept, sent, len(client.timeouts)) == ([], [1], 1)


def test_behind_others_it_waits_a_moment_for_company(slept: list[float], sent: list[int]) -> None:
    client = Client(1, 2, 3)
    bridge = bridge_of(client)
    bridge._receive()
    bridge._dispatch.send_what_is_due()
    land(bridge)
    bridge._dispatch.interval._next = 0.0  # the pause behind it is over
    bridge._receive()
    bridge._dispatch.send_what_is_due()
    assert (slept, sent) == ([conf.BRIDGE.gather], [1, 5])


def test_while_nothing_may_be_sent_it_does_not_look(slept: list[float], sent: list[int]) -> None:
    client = Client(1, 2)
    bridge = bridge_of(client)
    bridge._receive()
    bridge._dispatch.send_what_is_due()
    bridge._receive()
    [pause] = slept
    assert 0 < pause <= conf.BRIDGE.send_interval
    assert client.timeouts[1:] == [0.0]
    assert len(bridge.group.partitions[KEY].buffer) == 2


def test_a_backlog_is_taken_without_a_pause(slept: list[float], sent: list[int]) -> None:
    full = conf.BRIDGE.chunk_events
    client = Client(full, full, 1)
    bridge = bridge_of(client)
    for _ in range(4):
        bridge._receive()
        bridge._dispatch.send_what_is_due()
    assert (slept, sent) == ([], [full])
    assert len(bridge.group.partitions[KEY].buffer) == full + 1
