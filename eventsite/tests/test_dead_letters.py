"""The whole path with poison in it: real processes, and order through retry, dead letter and redrive."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.core.management import call_command

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC
from devtools.probe.models import ProbeEntry
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, settles
from devtools.testing.processes import Process, running_together, spec_of
from outbox.drain.run import Drain
from outbox.handlers.foreign import NOT_OURS
from outbox.kafka import producer
from outbox.kafka.log_reader import read_topic
from outbox.kafka.producer import OutgoingMessage
from outbox.models import BridgePosition, DeadLetter, InboxReceipt, OutboxEvent
from outbox.queries import published_ends
from outbox.topics import lane_of, partition_of

pytestmark = pytest.mark.usefixtures("pipeline")

State = DeadLetter.State


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Where the test writes what the effect shall do with a key: raise, exit, hang."""
    return tmp_path


def obeying(orders: Path, *names: str) -> AbstractContextManager[list[Process]]:
    """Processes whose probe obeys `orders`, started side by side."""
    changed = {
        "DJANGO_SETTINGS_MODULE": "devtools.testing.obedient.settings",
        "PROBE_ORDERS": str(orders),
    }
    return running_together([spec_of(name, **changed) for name in names])


def everything(orders: Path) -> AbstractContextManager[list[Process]]:
    return obeying(orders, "worker-effects", "worker-outbox", "beat", "bridge")


def draw(*keys: str) -> None:
    probe_services.draw(keys)


def states(key: str) -> list[str]:
    return [row.get_state_display() for row in DeadLetter.objects.filter(key=key).order_by("id")]


def applied(key: str) -> int:
    return len(probe_numbers(key))


def probe_numbers(key: str) -> list[int]:
    rows = ProbeEntry.objects.filter(key=key).order_by("id")
    return list(rows.values_list("seq", flat=True))


def test_a_failing_event_is_retried_while_its_key_waits_and_others_go_on(orders: Path) -> None:
    """And a discarded one sets its followers free."""
    for key in ("bad", "worse"):
        (orders / key).write_text("raise")
    with everything(orders):
        for _ in range(3):
            draw("bad", "worse", "good")
        waiting = ["retrying", "parked", "parked"]
        assert settles(lambda: states("bad") == states("worse") == waiting)
        assert settles(lambda: applied("good") == 3)
        for key in ("bad", "worse"):
            (orders / key).unlink()
        call_command(
            "dead_letters", "discard", str(DeadLetter.objects.filter(key="worse").earliest("id").id)
        )
        draw("bad", "good")
        assert settles(lambda: applied("bad") == 4)
        assert settles(lambda: applied("good") == 4)
        assert settles(lambda: applied("worse") >= 2)
    assert probe_numbers("bad") == probe_numbers("good") == [1, 2, 3, 4]
    assert probe_numbers("worse") in ([2, 3], [1, 2, 3])  # the redrive may have been faster


def test_what_stays_bad_is_dead_told_and_replayed_in_order(orders: Path) -> None:
    (orders / "bad").write_text("raise")
    with everything(orders):
        draw("bad")
        draw("bad")
        assert settles(lambda: states("bad") == ["dead", "parked"])
        assert len((orders / "bad.seen").read_text()) >= 4
        dlq = OutboxEvent.objects.filter(topic=PROBE_TOPIC.dlq, status=OutboxEvent.Status.PUBLISHED)
        assert settles(dlq.exists)
        [told] = [
            message
            for message in read_topic(PROBE_TOPIC.dlq, ends=published_ends(PROBE_TOPIC.dlq))
            if message.event_id == str(dlq.get().event_id)
        ]
        headers = {name: (value or b"").decode() for name, value in told.headers}
        event = OutboxEvent.objects.filter(key="bad", topic=PROBE_TOPIC.name).earliest("id")
        assert told.value == event.payload.encode()
        assert headers["original-topic"] == PROBE_TOPIC.name
        assert headers["original-partition"] == str(event.partition)
        assert headers["original-offset"] == str(event.offset)
        assert (headers["handler"], headers["attempts"]) == (PROBE_HANDLER, "4")
        assert (headers["error"], headers["replay-count"]) == ("ValueError: poison by order", "0")
        (orders / "bad").unlink()
        call_command("dead_letters", "replay", "--topic", PROBE_TOPIC.name, "--limit", "10")
        assert settles(lambda: applied("bad") == 2)
    assert probe_queries.verdict().ok


def beside(key: str) -> str:
    """Another key of the same partition."""
    names = (f"beside-{number}" for number in range(10_000))
    place = partition_of(lane_of(key), 12)
    return next(name for name in names if partition_of(lane_of(name), 12) == place)


def test_events_that_end_their_process_or_never_end_are_dead_while_others_go_on(
    orders: Path,
) -> None:
    killers = ["exit", "hang"]
    assert len({partition_of(lane_of(killer), 12) for killer in killers}) == 2
    neighbours = [beside(killer) for killer in killers]
    for killer in killers:
        (orders / killer).write_text(killer)

    def all_applied(keys: list[str], times: int) -> bool:
        return settles(lambda: all(applied(key) == times for key in keys), within=2 * PATIENCE)

    def all_isolated() -> bool:
        return all(states(killer) == ["dead", "parked", "parked"] for killer in killers)

    with everything(orders):
        for _ in range(3):
            draw(*killers, *neighbours, *(f"cold-{number}" for number in range(40)))
        assert all_applied(neighbours, 3)
        assert settles(all_isolated, within=2 * PATIENCE)
        draw(*neighbours)
        assert all_applied(neighbours, 4)
        assert DeadLetter.objects.count() == 6
        for killer in killers:
            (orders / killer).unlink()
            call_command("dead_letters", "replay", "--key", killer)
        assert all_applied(killers, 3)
    assert probe_queries.verdict().ok


def test_garbage_is_parked_and_its_partition_goes_on(orders: Path) -> None:
    garbage = OutgoingMessage(PROBE_TOPIC.name, 0, b"k\xff", b"\x80 no JSON", [])
    assert producer.send([garbage], timeout=5).complete
    with obeying(orders, "worker-effects", "bridge"):
        assert settles(DeadLetter.objects.exists)
        draw(*(f"key-{number}" for number in range(50)))
        Drain().run()
        assert settles(lambda: InboxReceipt.objects.count() == 51)
    letter = DeadLetter.objects.get()
    assert letter.state == State.DEAD
    assert letter.error.startswith(f"{NOT_OURS}, and cannot be decoded: UnicodeEncodeError")


def test_workers_away_accuse_nobody(orders: Path) -> None:
    """Chunks are sent again and again, and begun by nobody."""
    draw(*(f"key-{number}" for number in range(30)))
    Drain().run()
    positions = BridgePosition.objects.filter(handler=PROBE_HANDLER)
    with obeying(orders, "bridge"):
        assert settles(lambda: positions.filter(attempts__gte=2).exists())
        with redis.Redis.from_url(settings.REDIS_URL) as broker:
            assert int(broker.llen("probe")) <= 60
        with obeying(orders, "worker-effects"):
            assert settles(lambda: InboxReceipt.objects.count() == 30)
    assert not DeadLetter.objects.exists()
    assert probe_queries.verdict().ok


def test_a_broken_handler_is_paused_and_resume_redrives_its_run(orders: Path) -> None:
    keys = [f"key-{number}" for number in range(60)]
    for key in keys:
        (orders / key).write_text("raise")
    paused = BridgePosition.objects.filter(handler=PROBE_HANDLER, paused=True)
    with everything(orders):
        draw(*keys)
        assert settles(lambda: paused.count() == PROBE_TOPIC.partitions)
        time.sleep(2)
        assert DeadLetter.objects.count() < len(keys)
        for key in keys:
            (orders / key).unlink()
        call_command("handlers", "resume", PROBE_HANDLER)
        assert settles(lambda: probe_queries.verdict().applied == len(keys))
    assert probe_queries.verdict().ok
    assert set(DeadLetter.objects.values_list("state", flat=True)) <= {State.APPLIED}
