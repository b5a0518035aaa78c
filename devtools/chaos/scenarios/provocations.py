"""The rare moments, made to happen: each is harmless with all guards in place, and shows the
damage when one is broken (mutation.py). No load beside them: what happens when is decided here."""

from __future__ import annotations

import secrets
import time

from celery import current_app

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios import broker
from devtools.chaos.scenarios.base import Play, Scenario
from devtools.probe.events import PROBE_TOPIC
from devtools.testing.pipeline import PROBE_HANDLER, chunks_since
from outbox.inbox.chunk import Chunk
from outbox.topics import lane_of, partition_of

__all__ = ["SCENARIOS"]

BURST = 40
BROKER_LIMIT = 2000
FIRST_DEADLINE = 10.0


def burst(ground: Ground) -> None:
    for _ in range(3):
        ground.write(*["hot"] * BURST)
    ground.must_settle(20)


def overtaking(ground: Ground) -> None:
    """A drain is held before it sends; its key gets another event; a second drain comes."""
    with ground.another("worker-outbox"):
        with ground.hold(), ground.fault("a drain is held before it sends"):
            ground.write("hot", modes=["hold"])
            ground.wait_held("before")
            ground.write("hot")
            time.sleep(3)
        ground.must_settle(20)


def frozen_holder(ground: Ground) -> None:
    """A drain is stopped for good while it holds a lane; a second one is there."""
    second = ground.cleanup.enter_context(ground.another("worker-outbox"))
    second.pause()
    with ground.fault("a drain is stopped while it holds its lane"):
        with ground.hold():
            ground.write("hot", modes=["hold"])
            ground.wait_held("before")
            ground.unit("worker-outbox").pause()
            ground.cleanup.callback(ground.unit("worker-outbox").resume)
            second.resume()
        ground.write("hot")
        ground.must_settle(25)


def frozen_holder_wakes(ground: Ground) -> None:
    if not ground.stuck:
        ground.wake("worker-outbox")
    else:
        ground.unit("worker-outbox").resume()


def without_beat(ground: Ground) -> None:
    with ground.stopped("beat"):
        time.sleep(2)
        for _ in range(5):
            ground.write("a", "b", "c")
            time.sleep(0.3)
        ground.must_settle(12)


def refused_in_the_middle(ground: Ground) -> None:
    broker.limit_messages(PROBE_TOPIC.name, BROKER_LIMIT)
    try:
        with ground.fault("the broker refuses a message that is too large"):
            with ground.hold():
                ground.write(
                    "hot",
                    "hot",
                    modes=["hold-next"],
                    padding=secrets.token_hex(BROKER_LIMIT),
                )
                ground.wait_held("between")
                # The request with the large one is answered before the next is queued.
                time.sleep(1)
            time.sleep(2)
    finally:
        broker.limit_messages(PROBE_TOPIC.name, None)
    ground.must_settle(60)


def out_of_turn(ground: Ground) -> None:
    """Copies of two chunks reach the worker in the wrong order, as from a bridge that slept."""
    with ground.fault("chunks come in the wrong order", repeats=False), ground.stopped("bridge"):
        first, second = _two_chunks(ground)
        for chunk in (second, first, second):
            _send(chunk)
            time.sleep(0.7)
        time.sleep(1)
    ground.must_settle(30)


def _two_chunks(ground: Ground) -> list[Chunk]:
    ground.write("hot")
    ground.write("hot")
    _drained(ground)
    return [chunk for chunk in chunks_since(PROBE_HANDLER, size=1) if chunk.events]


def _drained(ground: Ground) -> None:
    ground.wait(lambda: not ground.evidence.backlog(ground.mark).pending, 20, "the drain")


def _send(chunk: Chunk) -> None:
    current_app.send_task(
        "probe.append_entries", kwargs={"chunks": [chunk.to_task()]}, queue="probe"
    )


def _publish_twice(ground: Ground) -> None:
    """A drain dies between Kafka's acknowledgement and its own COMMIT."""
    with ground.fault("a drain dies between Kafka's word and its own COMMIT"):
        with ground.hold():
            ground.write("hot", modes=["hold-after"])
            ground.wait_held("after")
            ground.unit("worker-outbox").wanted = False
            ground.unit("worker-outbox").kill()
        ground.unit("worker-outbox").start()
        ground.unit("worker-outbox").wait_ready()
        _drained(ground)


def twice_in_a_chunk(ground: Ground) -> None:
    with ground.stopped("bridge"):
        _publish_twice(ground)
    ground.must_settle(30)


def twice_in_two_chunks(ground: Ground) -> None:
    """The first copy is applied while the drain that sent it has not settled yet."""
    with ground.fault("a drain dies after its event has had its effect"):
        with ground.hold():
            attempt = ground.write("hot", modes=["hold-after"])
            ground.wait_held("after")
            ground.wait(lambda: ground.applied(attempt), 5, "the effect")
            ground.unit("worker-outbox").wanted = False
            ground.unit("worker-outbox").kill()
        ground.unit("worker-outbox").start()
        ground.unit("worker-outbox").wait_ready()
        _drained(ground)
    ground.write("hot")
    ground.must_settle(30)
    time.sleep(2)


def two_copies_at_once(ground: Ground) -> None:
    """One copy of a chunk has done its work and not committed when the other begins."""
    with ground.fault("two copies of a chunk run at once", repeats=False), ground.stopped("bridge"):
        ground.write("hot", modes=["hold-effect"])
        _drained(ground)
        [chunk] = [chunk for chunk in chunks_since(PROBE_HANDLER, size=1) if chunk.events]
        with ground.hold():
            _send(chunk)
            ground.wait_held("effect")
            _send(chunk)
            time.sleep(2)
        time.sleep(2)
    ground.must_settle(30)


def flushed_on_the_way(ground: Ground) -> None:
    """Redis forgets chunks that were sent and that no worker has begun."""
    frozen = ground.frozen("worker-effects")
    with ground.fault("FLUSHALL while chunks wait"), ground.redis() as client, frozen:
        ground.write("a", "b", "c", "d")
        _drained(ground)
        time.sleep(1)
        client.flushall()
    ground.must_settle(FIRST_DEADLINE + 20)


def behind_poison(ground: Ground) -> None:
    """A key's event fails until it is mended; its successors have come before that."""
    with ground.fault("an event fails until it is mended", repeats=False):
        poison = ground.write_poison("hot", "raise")
        ground.wait(lambda: bool(_letter(ground, poison)), 30, "the dead letter")
        for _ in range(4):
            ground.write("hot")
        ground.wait(lambda: not ground.evidence.backlog(ground.mark).open, 20, "the successors")
        ground.switches.on("healed")
    ground.must_settle(60)


def redriven_twice(ground: Ground) -> None:
    """The lease of a redrive ends while it has done its work and not committed: the letter is
    claimed once more, as it is now, and a second redrive begins."""
    with ground.fault("a dead letter is redriven by two tasks at once", repeats=False):
        poison = ground.write_poison("hot", "raise,hold-effect")
        ground.wait(lambda: bool(_letter(ground, poison)), 30, "the dead letter")
        with ground.hold():
            ground.switches.on("healed")
            ground.wait_held("effect")
            sql = "SELECT id, attempts FROM dead_letter WHERE event_id = %s"
            claims = [list(claim) for claim in ground.evidence.rows(sql, (poison,))]
            second = {"letters": claims}
            current_app.send_task("probe.append_entries", kwargs=second, queue="probe")
            time.sleep(1)
    ground.must_settle(40)
    time.sleep(3)


def _letter(ground: Ground, event_id: str) -> list[int]:
    sql = "SELECT id FROM dead_letter WHERE event_id = %s"
    return [int(row[0]) for row in ground.evidence.rows(sql, (event_id,))]


def poison_in_a_chunk(ground: Ground) -> None:
    """Poison of one key between the events of another, all in one chunk of one partition."""
    partition = partition_of(lane_of(f"{ground.prefix}hot"), PROBE_TOPIC.partitions)
    neighbour = next(
        name
        for name in map("neighbour-{}".format, range(1000))
        if partition_of(lane_of(f"{ground.prefix}{name}"), PROBE_TOPIC.partitions) == partition
    )
    with ground.fault("poison in the middle of a chunk", repeats=False):
        with ground.stopped("bridge"):
            ground.write("hot")
            poison = ground.write_poison(neighbour, "raise")
            for _ in range(4):
                ground.write("hot")
            _drained(ground)
        give_up = time.monotonic() + 25
        while not _letter(ground, poison) and time.monotonic() < give_up:
            time.sleep(0.1)
        ground.switches.on("healed")
    ground.must_settle(30)


def _nothing(ground: Ground) -> None:
    pass


def _scenario(name: str, title: str, play: Play, after: Play = _nothing) -> Scenario:
    return Scenario(name=name, title=title, play=play, after=after, rate=0.0, settle_within=30.0)


SCENARIOS = (
    _scenario("burst", "many events of one key in one transaction", burst),
    _scenario("overtaking", "a second drain comes while one is held before it sends", overtaking),
    _scenario(
        "frozen-holder",
        "a drain is stopped while it holds a lane, and another is there",
        frozen_holder,
        frozen_holder_wakes,
    ),
    _scenario("without-beat", "beat is stopped, nudges alone drain", without_beat),
    _scenario(
        "refused-in-the-middle",
        "Kafka refuses a message whose successor would fit, until its limit is raised",
        refused_in_the_middle,
    ),
    _scenario("out-of-turn", "chunks reach the worker in the wrong order", out_of_turn),
    _scenario("twice-in-a-chunk", "a chunk holds one event twice", twice_in_a_chunk),
    _scenario("twice-in-two", "the second copy of an event comes later", twice_in_two_chunks),
    _scenario("two-copies", "two copies of one chunk run at once", two_copies_at_once),
    _scenario("behind-poison", "successors of an event that fails until mended", behind_poison),
    _scenario("redriven-twice", "two redrives of one dead letter at once", redriven_twice),
    _scenario("poison-in-a-chunk", "poison in the middle of a chunk", poison_in_a_chunk),
    _scenario("flushed-on-the-way", "Redis forgets chunks on their way", flushed_on_the_way),
)
