"""The scenarios of the relay, declared in one table."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from devtools.chaos.ground import GroundError
from devtools.chaos.relay.ground import RelayGround
from devtools.localstack.unit import Unit
from devtools.relay import broker
from devtools.relay.messages import BAD, Message, numbered

__all__ = ["SCENARIOS", "RelayScenario"]

HAND = 400  # messages that a relay of four workers has in hand at most
CANARIES = 2  # at most so many come within a scenario, one a minute


@dataclass(frozen=True, slots=True)
class RelayScenario:
    """`quick`: part of the short run. `dedupe`: whether Redis is asked; `limit`: bytes that the topic
    takes. `real`: needs RabbitMQ itself, whose stand-in cannot do it."""

    name: str
    title: str
    play: Callable[[RelayGround], None]
    quick: bool = False
    dedupe: bool = True
    limit: int = 1_048_588
    real: bool = False


def _running(ground: RelayGround, unit: Unit, share: float = 0.1) -> None:
    """Until a part of what was sent has been taken."""
    before = len(ground.sent)
    ground.wait(lambda: ground.depth() < before * (1 - share) or not unit.is_alive(), "it relays")


def killed_at(step: str, ground: RelayGround) -> None:
    """A relay that kills itself at a step, in mid-stream; another goes on. What the first had claimed waits
    for the end of its lease, and nobody waits for that: the order is not promised then."""
    ground.one_relay = False
    ground.allowed = HAND
    ground.publish(3000, *BAD.values())
    unit = ground.relay(CHAOS_RELAY_DIES=step, WORKER_COUNT="4")
    ground.wait(lambda: not unit.is_alive(), f"it dies, {step}")
    ground.relay(WORKER_COUNT="4")
    ground.settle()


def stopped_often(ground: RelayGround) -> None:
    times = 3 if ground.quick else 10
    ground.publish(1500 * times)
    in_stream = 0
    for _ in range(times):
        ground.relay(WORKER_COUNT="4")
        before = ground.depth()
        ground.wait(lambda: ground.depth() < before - 200, "it relays")  # noqa: B023
        ground.stop_relays()
        in_stream += ground.depth() > 0
    ground.figures["stops in mid-stream"] = f"{in_stream} of {times}"
    ground.demand(in_stream > times / 2, "most stops came when all was relayed")
    ground.relay()
    ground.settle()


def rabbitmq_killed(ground: RelayGround) -> None:
    ground.publish(6000)
    _running(ground, ground.relay(WORKER_COUNT="4"))
    with ground.away("rabbitmq"):
        time.sleep(1.0)
    ground.settle()


def rabbitmq_frozen(ground: RelayGround) -> None:
    """No connection ends: only heartbeats that do not come say that nobody is there."""
    ground.publish(6000)
    url = ground.policy.url
    unit = ground.relay(
        WORKER_COUNT="4", RABBITMQ_URL=f"{url}?heartbeat=2" if ground.quick else url
    )
    _running(ground, unit)
    with ground.frozen("rabbitmq"):
        ground.wait(lambda: ground.metric("relay_consuming") == 0, "it notices", 120.0)
    ground.settle(90.0)


def queue_deleted(ground: RelayGround) -> None:
    """What was in it is gone with it, by its owner's word; what is sent afterwards arrives."""
    ground.publish(500)
    unit = ground.relay()
    ground.settle()
    broker.delete(ground.policy.url, ground.policy.queue)
    time.sleep(2.0)
    broker.declare(ground.policy.url, ground.policy.queue)
    ground.publish(500)
    ground.settle()
    ground.demand(unit.is_alive(), "the relay died")


def memory_alarm(ground: RelayGround) -> None:
    """RabbitMQ reads no connection that publishes: dead letters wait, everything else goes on."""
    ground.publish(500)
    unit = ground.relay()
    ground.settle()
    unit.pause()  # who sends would wait too: the messages must be there before
    try:
        ground.publish(1000, *BAD.values())
        rabbitmqctl(ground, "set_vm_memory_high_watermark", "0.00000001")
    finally:
        unit.resume()
    try:
        ground.wait(lambda: ground.metric("relay_dead_letters_waiting") > 0, "letters wait")
        good = 500 + 1000
        ground.wait(lambda: ground.metric("events_published_total") >= good, "the others go on")
        time.sleep(3.0)
        ground.demand(ground.metric("relay_dead_letters_waiting") > 0, "no letter waited")
    finally:
        rabbitmqctl(ground, "set_vm_memory_high_watermark", "absolute", "1GB")
    ground.settle()


def channel_closed(ground: RelayGround) -> None:
    """By the broker, whose patience with an acknowledgement is shorter than ours. Kafka's client keeps
    what it has, and each redelivery only lends it a tag."""
    _patience(ground, timeout=2000, look=500)
    try:
        unit = ground.relay()
        ground.publish(500)
        ground.settle()
        with ground.frozen("kafka"):
            ground.publish(500)
            ground.wait(
                lambda: ground.metric("events_consumed_total") > 1000 + CANARIES,
                "delivered again",
            )
            time.sleep(60.0 if not ground.quick else 4.0)
    finally:
        _patience(ground, timeout=1_800_000, look=60_000)
    ground.settle()
    ground.demand(unit.is_alive(), "the relay died")


def _patience(ground: RelayGround, *, timeout: int, look: int) -> None:
    """Milliseconds until an acknowledgement is overdue, and between looks for one, in channels that
    are opened from now on."""
    for name, value in (("consumer_timeout", timeout), ("channel_tick_interval", look)):
        rabbitmqctl(ground, "eval", f"application:set_env(rabbit, {name}, {value}).")


def rabbitmqctl(ground: RelayGround, *arguments: str) -> None:
    """On the node of the stack."""
    unit = ground.stack.server("rabbitmq")
    binary = unit.program.command[0].replace("rabbitmq-server", "rabbitmqctl")
    subprocess.run(  # noqa: S603 - beside the program that runs
        [binary, "-q", "-n", unit.program.environment["RABBITMQ_NODENAME"], *arguments],
        env=dict(unit.program.environment),
        check=True,
        capture_output=True,
        timeout=60,
    )


def kafka_away(ground: RelayGround) -> None:
    ground.publish(2000)
    unit = ground.relay()
    _running(ground, unit)
    ground.most_deliveries = 2000 + 2000 + 2 * 1000 + 64
    with ground.away("kafka"):
        ground.publish(2000)
        time.sleep(60.0 if not ground.quick else 2.0)
    ground.settle(120.0)


def kafka_frozen(ground: RelayGround) -> None:
    """Long enough for whoever gives up on it: nothing may be sent a second time."""
    ground.publish(1000)
    unit = ground.relay()
    ground.settle()
    ground.most_deliveries = 2000 + CANARIES
    with ground.frozen("kafka"):
        ground.publish(1000)
        time.sleep(20.0 if not ground.quick else 8.0)
    ground.settle(90.0)
    ground.demand(unit.is_alive(), "the relay died")


def kafka_refuses(ground: RelayGround) -> None:
    """One in a thousand is too large for a limit that the relay has not heard of."""
    unit = ground.relay(CHAOS_RELAY_LIMIT="1000000")
    payload = b'"%b"' % (b"l" * 30_000)
    for number in range(5):
        body = b'{"event_id": "large-%d", "payload": %b}' % (number, payload)
        ground.publish(1000, Message(body, names="Kafka refused it"))
    ground.settle()
    ground.demand(unit.is_alive(), "the relay died")


def redis_trouble(ground: RelayGround) -> None:
    """Emptied, read-only, slow, killed: the relay goes on."""
    unit = ground.relay()
    ground.publish(200)
    ground.settle()
    with ground.redis() as server:
        ground.publish(500)
        server.flushall()
        ground.settle()
        server.replicaof("127.0.0.1", 1)
        ground.publish(500)
        ground.settle()
        server.replicaof("NO", "ONE")
    with ground.frozen("redis"):
        ground.publish(500)
        ground.wait(lambda: ground.depth() == 0, "it goes on without Redis")
    with ground.away("redis"):
        ground.publish(500)
        ground.wait(lambda: ground.depth() == 0, "it goes on without Redis")
    ground.publish(500)
    ground.settle()
    ground.demand(unit.is_alive(), "the relay died")


def relays_come_and_go(ground: RelayGround) -> None:
    ground.one_relay = False
    ground.publish(4000)
    first = ground.relay(WORKER_COUNT="4")
    second = ground.relay(WORKER_COUNT="4")
    ground.publish(4000)
    ground.relay(WORKER_COUNT="4")
    first.stop(12.0)
    ground.publish(2000)
    second.kill()
    # Only what the killed one had between Kafka's report and the mark.
    ground.allowed = HAND
    ground.settle()


def twins(ground: RelayGround) -> None:
    """Each message is sent twice, far apart, to two relays that are both busy: one of the two is
    published, whoever gets it."""
    ground.one_relay = False
    ground.relay(WORKER_COUNT="4")
    ground.relay(WORKER_COUNT="4")
    ground.wait(lambda: ground.metric("relay_consuming") == 2, "both consume")
    messages = [numbered(ground.policy.queue, number) for number in range(1500)]
    ground.sent += messages
    with ground.frozen("kafka"):
        # In the hands of both before either can send: only the claim distinguishes them.
        broker.publish(
            ground.policy.url, ground.policy.queue, [m for m in messages for _ in range(2)]
        )
        time.sleep(3.0)
    ground.settle()


def frozen_relay(ground: RelayGround) -> None:
    """It wakes when others have sent what it had: what it had not handed to Kafka it does not send."""
    ground.one_relay = False
    ground.allowed = HAND
    ground.publish(3000)
    unit = ground.relay(WORKER_COUNT="4")
    _running(ground, unit)
    unit.pause()
    ground.relay(WORKER_COUNT="4")
    time.sleep(75.0 if not ground.quick else 12.0)  # RabbitMQ misses its heartbeats
    unit.resume()
    ground.settle(90.0)


def lost_tags(ground: RelayGround) -> None:
    """The connection goes while Kafka holds everything up, and comes back before Kafka does."""
    ground.publish(300)
    unit = ground.relay()
    ground.settle()
    with ground.frozen("kafka"):
        ground.publish(300)
        ground.wait(lambda: ground.depth() == 0, "all are in hand")
        time.sleep(1.0)
        rabbitmqctl(ground, "close_all_connections", "chaos")
        time.sleep(4.0)
    ground.settle()
    ground.demand(unit.is_alive(), "the relay died")


def letters_refused(ground: RelayGround) -> None:
    """The dead-letter queue is full for a while."""
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    broker.declare(ground.policy.url, ground.policy.dead_letter_queue, full)
    bad = [BAD[name] for name in ("no-json", "array", "id-missing", "payload-missing")]
    ground.publish(200, *bad)
    unit = ground.relay()
    try:
        ground.wait(lambda: ground.metric("relay_dead_letters_waiting") == 3, "three wait", 15.0)
    except GroundError as error:
        ground.demand(False, str(error))
    taken = broker.take_all(ground.policy.url, ground.policy.dead_letter_queue)
    time.sleep(1.0)
    unit.stop(12.0)
    # The others are still in their queue.
    taken += broker.take_all(ground.policy.url, ground.policy.dead_letter_queue)
    ground.sent = [message for message in ground.sent if message.body not in taken]
    broker.delete(ground.policy.url, ground.policy.dead_letter_queue)
    ground.relay()
    ground.settle()


# At each of them other messages may be on their way to Kafka, unmarked.
STEPS = ("taken", "claimed", "sent", "reported", "marked", "acknowledged")

SCENARIOS: tuple[RelayScenario, ...] = (
    *(
        RelayScenario(
            f"relay-dies-{step}",
            f"a relay is killed when it has {step} messages",
            partial(killed_at, step),
            quick=step == "reported",
        )
        for step in STEPS
    ),
    RelayScenario(
        "relay-stops", "SIGTERM in mid-stream, again and again", stopped_often, quick=True
    ),
    RelayScenario("relay-stops-no-redis", "the same without Redis", stopped_often, dedupe=False),
    RelayScenario("relay-rabbitmq-killed", "RabbitMQ is killed and comes back", rabbitmq_killed),
    RelayScenario("relay-rabbitmq-frozen", "RabbitMQ stands still and goes on", rabbitmq_frozen),
    RelayScenario("relay-queue-deleted", "the queue is deleted and declared again", queue_deleted),
    RelayScenario("relay-memory-alarm", "RabbitMQ's memory is short", memory_alarm, real=True),
    RelayScenario("relay-channel-closed", "RabbitMQ closes the channel", channel_closed, real=True),
    RelayScenario("relay-kafka-away", "Kafka is killed for a minute", kafka_away),
    RelayScenario("relay-kafka-frozen", "Kafka holds everything up", kafka_frozen, dedupe=False),
    RelayScenario(
        "relay-kafka-refuses", "Kafka refuses one in a thousand", kafka_refuses, limit=20_000
    ),
    RelayScenario("relay-redis", "Redis is emptied, read-only, frozen, killed", redis_trouble),
    RelayScenario("relay-several", "three relays join, leave and die", relays_come_and_go),
    RelayScenario("relay-twins", "every message comes twice, to two relays", twins),
    RelayScenario("relay-frozen", "a relay is frozen and woken", frozen_relay),
    RelayScenario(
        "relay-lost-tags",
        "connections close while sends are under way",
        lost_tags,
        dedupe=False,
        real=True,
    ),
    RelayScenario(
        "relay-letters-refused", "the dead-letter queue is full", letters_refused, real=True
    ),
)
