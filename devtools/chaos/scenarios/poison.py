"""Events that cannot be processed, in every way we know, and what becomes of those behind them."""

from __future__ import annotations

import secrets
import time
from urllib.request import urlopen
from uuid import UUID, uuid4, uuid5

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios import broker
from devtools.chaos.scenarios.base import Scenario
from devtools.probe.events import PROBE_TOPIC
from orders.events import ORDER_EVENTS_TOPIC
from outbox.conf import CIRCUIT
from outbox.handlers.foreign import NOT_OURS
from outbox.kafka import admin
from outbox.topics import lane_of, partition_of

__all__ = ["SCENARIOS"]

HANDLER = "append_probe_entries"
SALES_HANDLER = "record_sales"
DRAIN_HANDLER = "outbox.drain"
BROKER_LIMIT = 20_000
BURST = 1_500
DEAD = 2
DEAD_WITHIN = 60.0


def _poison(ground: Ground, mode: str, *names: str) -> None:
    """Poison of a mode on each of these keys, each with successors, and wait until it is dead."""
    with ground.fault(f"poison: {mode}", repeats=False):
        for name in names:
            ground.write_poison(name, mode)
            ground.write(name)
            ground.write(name, name)
        _wait_dead(ground, within=DEAD_WITHIN + 30 * len(names))


def _wait_dead(ground: Ground, *, within: float = DEAD_WITHIN) -> None:
    seconds = ground.wait(lambda: _dead(ground) >= len(ground.poison), within, "dead letters")
    ground.figures["until dead"] = f"{seconds:.1f} s"


def _dead(ground: Ground) -> int:
    """Poison of this scenario that is dead for good."""
    sql = "SELECT count(*) FROM dead_letter WHERE state = 2 AND event_id = ANY(%s::uuid[])"
    return int(ground.evidence.rows(sql, (list(ground.poison),))[0][0])


def _redrive(ground: Ground, handler: str = HANDLER) -> None:
    """The cause is mended, and an operator lets everything be tried again."""
    ground.switches.on("healed")
    ground.manage("dead_letters", "replay", "--handler", handler)


def raises(ground: Ground) -> None:
    """On a key of its own and on a hot one: there redrive races with new events of the key."""
    _poison(ground, "raise", "poison-1", "poison-2", "hot-0", "hot-1")
    time.sleep(2)
    _redrive(ground)


def _found_and_mended(ground: Ground, mode: str, name: str) -> None:
    """Poison that takes its process along is found by what was begun and never ended. Until it is
    dead every try costs a lease; a quick run mends it as soon as it is found."""
    with ground.fault(f"poison: {mode}", repeats=False):
        event_id = ground.write_poison(name, mode)
        ground.write(name)
        ground.write(name, name)
        seconds = ground.wait(
            lambda: ground.evidence.letter_is_open(event_id), 120, "the dead letter"
        )
        ground.figures["until found"] = f"{seconds:.1f} s"
        if not ground.quick:
            _wait_dead(ground, within=300)
    if ground.quick:
        ground.switches.on("healed")
    else:
        _redrive(ground)


def kills(ground: Ground) -> None:
    _found_and_mended(ground, "exit", "killer")


def hangs(ground: Ground) -> None:
    _found_and_mended(ground, "hang", "sleeper")


def undecodable(ground: Ground) -> None:
    """Messages of a foreign producer, past the outbox: they are dead letters, and nobody waits."""
    topic_id = admin.topic_ids([PROBE_TOPIC.name])[PROBE_TOPIC.name]
    with ground.fault("events that cannot be decoded", repeats=False):
        for number, value in enumerate((b"no JSON", b"\xff\xfe\x00", b'{"key": 7}', b"")):
            key = f"{ground.prefix}foreign-{number}"
            partition = partition_of(lane_of(key), PROBE_TOPIC.partitions)
            known = {"ce_id": str(uuid4()).encode(), "ce_type": b"SEQUENCE_DRAWN"}
            for headers in (known, {}):
                offset = broker.produce_raw(
                    PROBE_TOPIC.name, partition, key.encode(), value, headers
                )
                event_id = (
                    UUID(known["ce_id"].decode())
                    if headers
                    else uuid5(topic_id, f"{partition}/{offset}")
                )
                ground.foreign.add(str(event_id))
        ground.wait(lambda: _foreign_open(ground) == len(ground.foreign), 60, "foreign letters")
        ground.write("foreign-0")
    sql = "SELECT id FROM dead_letter WHERE event_id = ANY(%s::uuid[]) ORDER BY id"
    letters = [str(row[0]) for row in ground.evidence.rows(sql, (list(ground.foreign),))]
    ground.manage("dead_letters", "discard", *letters)


def _foreign_open(ground: Ground) -> int:
    sql = "SELECT count(*) FROM dead_letter WHERE state < 3 AND event_id = ANY(%s::uuid[])"
    return int(ground.evidence.rows(sql, (list(ground.foreign),))[0][0])


def burst(ground: Ground) -> None:
    """Another producer writes garbage to our topic, key after key: all of it is set aside, counted
    apart, and our own events do not wait for anybody to look at it."""
    topic_id = admin.topic_ids([ORDER_EVENTS_TOPIC.name])[ORDER_EVENTS_TOPIC.name]
    keys = [f"{ground.prefix}burst-{number // 2}".encode() for number in range(BURST)]
    before = _counted_apart(ground)
    with ground.fault(f"{BURST} foreign messages that cannot be decoded", repeats=False):
        places = broker.produce_burst(
            ORDER_EVENTS_TOPIC.name, ORDER_EVENTS_TOPIC.partitions, keys, b"{bad"
        )
        ground.foreign |= {str(uuid5(topic_id, f"{where}/{offset}")) for where, offset in places}
        seconds = ground.wait(lambda: _foreign_open(ground) >= BURST, 60, "the burst's letters")
    ground.figures["until parked"] = f"{seconds:.1f} s"
    time.sleep(ground.seconds(10, 3))  # events of ours go on coming meanwhile
    counted = _counted_apart(ground) - before
    ground.demand(counted == BURST, f"{counted:.0f} of {BURST} were counted apart")
    tripped = ground.evidence.rows("SELECT handler FROM handler_control WHERE paused")
    ground.demand(not tripped, f"the circuit of {tripped} tripped")
    begin = time.monotonic()
    said = ground.manage(
        *("dead_letters", "discard", "--handler", SALES_HANDLER),
        *("--error", NOT_OURS, "--limit", str(2 * BURST)),
    )
    ground.figures["until discarded"] = f"{time.monotonic() - begin:.1f} s"
    ground.demand(said.endswith(f"{BURST} discarded, 0 skipped."), said[-200:])


def _counted_apart(ground: Ground) -> float:
    """What the workers say of the handler's foreign events."""
    url = ground.unit("worker-effects").program.health.replace("/health", "/metrics")
    with urlopen(url, timeout=5) as answer:  # noqa: S310  (our own process)
        lines = answer.read().decode().splitlines()
    wanted = f'dead_letters_foreign_total{{handler="{SALES_HANDLER}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))


def too_large(ground: Ground) -> None:
    """The broker's limit is lower than the code's: it refuses one of a batch; its key waits."""
    broker.limit_messages(PROBE_TOPIC.name, BROKER_LIMIT)
    try:
        with ground.fault("an event too large for the broker, with successors of its key"):
            large = ground.write("large", "large", padding=secrets.token_hex(BROKER_LIMIT))
            ground.poison.add(large.events[0].event_id)
            ground.write("large")
            _wait_dead(ground)
            ground.write("large")
            time.sleep(2)
            held = ground.evidence.rows(
                "SELECT count(*) FROM event_outbox WHERE key = %s AND status = 2",
                (f"{ground.prefix}large",),
            )
            ground.figures["held behind it"] = str(held[0][0])
    finally:
        broker.limit_messages(PROBE_TOPIC.name, None)
    ground.manage("dead_letters", "replay", "--handler", DRAIN_HANDLER)


def broken_handler(ground: Ground) -> None:
    """It fails for everyone: the circuit pauses it, nobody's event is poison for that."""
    with ground.fault("the handler fails for everyone", repeats=False):
        ground.switches.on("fail-all")
        ground.wait(lambda: _paused(ground), 60, "the circuit")
        time.sleep(ground.seconds(20, 5))
        ground.switches.off("fail-all")
        ground.figures["parked when it tripped"] = str(_letters(ground))
        failed = len(ground.evidence.dead_letters(ground.mark))
        ground.demand(failed <= 2 * CIRCUIT.run, f"{failed} failed before the circuit tripped")
        ground.figures["resume"] = ground.manage("handlers", "resume", HANDLER)


def _paused(ground: Ground) -> bool:
    sql = "SELECT paused FROM handler_control WHERE handler = %s"
    return (True,) in ground.evidence.rows(sql, (HANDLER,))


def _letters(ground: Ground) -> int:
    sql = """
        SELECT count(*) FROM dead_letter JOIN event_outbox USING (event_id)
        WHERE event_outbox.id > %s
    """
    return int(ground.evidence.rows(sql, (ground.mark.outbox_id,))[0][0])


SCENARIOS = (
    Scenario(
        name="poison",
        title="events whose effect fails, redriven while new events of their keys come",
        play=raises,
        quick=True,
    ),
    Scenario(name="poison-kills", title="an event that kills its process", play=kills),
    Scenario(name="poison-hangs", title="an event whose effect never returns", play=hangs),
    Scenario(name="undecodable", title="events that cannot be decoded", play=undecodable),
    Scenario(
        name="poison-burst",
        title="1,500 messages of another producer that cannot be decoded",
        play=burst,
        quick=True,
    ),
    Scenario(
        name="too-large",
        title="an event too large for the broker in mid-batch, with successors of its key",
        play=too_large,
        # its lane has a letter, is put back to where the letter waited, and again to those behind
        # it, and has none any more
        lane_updates=4,
    ),
    Scenario(
        name="broken-handler",
        title="a handler that fails for everyone: the circuit, then resume",
        play=broken_handler,
        expected_damage={
            "I8": "what failed before the circuit tripped was parked, and is redriven by resume"
        },
    ),
)
