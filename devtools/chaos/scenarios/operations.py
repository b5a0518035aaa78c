"""What operators do under load: handlers added, offsets reset, backups taken back."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from django.db import connection

from devtools.chaos.ground import Ground, GroundError
from devtools.chaos.scenarios import broker
from devtools.chaos.scenarios.base import Scenario
from devtools.chaos.wiring import SECOND_HANDLER
from devtools.localstack import PLAN
from devtools.probe.events import PROBE_TOPIC

__all__ = ["RESTORE", "SCENARIOS"]

PROBE_HANDLER = "append_probe_entries"
PROCESSES = PLAN.pipeline


def add_a_handler(ground: Ground) -> None:
    """Positions first, then the worker, then the bridge; it hears all that is published after that."""
    ground.evidence.rows("TRUNCATE chaos_log")
    new = {"CHAOS_SECOND_HANDLER": "now"}
    with ground.fault("worker and bridge start again with one more handler", repeats=False):
        ground.manage("sync_routes", **new)
        since = time.time()
        ground.cleanup.callback(_forget_handler, ground)
        ground.cleanup.enter_context(ground.changed(["worker-effects"], **new))
        ground.cleanup.enter_context(ground.changed(["bridge"], **new))
    ground.figures["since"] = f"{since:.3f}"
    time.sleep(ground.seconds(20, 5))


def _forget_handler(ground: Ground) -> None:
    for table in ("bridge_position", "inbox_receipt"):
        ground.evidence.rows(f"DELETE FROM {table} WHERE handler = %s", (SECOND_HANDLER,))


def the_new_handler_has_all(ground: Ground) -> None:
    since = float(ground.figures.pop("since"))
    wanted = [
        (row.key, row.seq)
        for row in ground.evidence.stored(ground.mark)
        if row.topic == PROBE_TOPIC.name and row.created_at > since
    ]

    def found() -> list[tuple[str, int]]:
        return [(e.key, e.seq) for e in ground.evidence.applied(ground.mark, "chaos_log")]

    ground.wait(lambda: set(wanted) <= set(found()), 60, "the new handler's effects")
    entries = found()
    ground.demand(len(entries) == len(set(entries)), "the new handler applied something twice")
    last: dict[str, int] = {}
    for key, seq in entries:
        ground.demand(seq > last.get(key, 0), f"the new handler: {key}:{seq} out of order")
        last[key] = seq
    ground.figures["new handler"] = f"{len(entries)} applied, {len(wanted)} since its start"


def some_history(ground: Ground) -> None:
    """Events of which everything will be forgotten but the log in Kafka and the effects."""
    for number in range(20):
        ground.write(*(f"old-{number}-{key}" for key in range(10)))
    if not ground.settled(60):
        raise GroundError("the old events did not settle")
    ground.attempts.clear()


def purge_and_reset(ground: Ground) -> None:
    """Retention has taken receipts and rows; then somebody resets the group's offsets to the start."""
    old = (ground.mark.outbox_id,)
    ground.evidence.rows(
        "DELETE FROM inbox_receipt WHERE event_id IN"
        " (SELECT event_id FROM event_outbox WHERE id <= %s AND topic = 'probe-events')",
        old,
    )
    purged = ground.evidence.rows(
        "DELETE FROM event_outbox WHERE id <= %s AND topic = 'probe-events' RETURNING id", old
    )
    # What autovacuum does within a minute: most of these tables was just deleted.
    ground.evidence.rows("VACUUM event_outbox, inbox_receipt")
    with (
        ground.fault("offsets of the group are reset to the beginning", repeats=False),
        ground.stopped("bridge"),
    ):
        # A stopped member may be counted for a moment longer.
        ground.wait(_reset_offsets, 30, "the group's offsets reset")
    ground.figures["events forgotten"] = str(len(purged))
    time.sleep(3)


def _reset_offsets() -> bool:
    try:
        broker.reset_group(PROBE_HANDLER, PROBE_TOPIC.name, PROBE_TOPIC.partitions)
    except broker.KafkaException:
        time.sleep(0.5)
        return False
    return True


def restore(ground: Ground) -> None:
    """Everything stops, the database becomes what it was five seconds before, everything starts.

    The copy is taken from a database that was stopped the hard way, as a snapshot of its disk
    would be; its recovery is PostgreSQL's own. What was promised after it is lost, and nothing else
    may be.
    """
    postgres = ground.stack.server("postgres")
    data = _data_directory(ground)
    copy = data.with_name(data.name + ".five-seconds-ago")
    with ground.fault("PostgreSQL is set back by five seconds"):
        begin = time.time()
        postgres.kill()
        _copy(data, copy)
        postgres.start()
        postgres.wait_ready()
        time.sleep(5)
        for name in PROCESSES:
            ground.unit(name).stop()
        before = _known(ground)
        postgres.kill()
        shutil.rmtree(data)
        copy.rename(data)
        connection.close()
        ground.lost_between = begin, time.time()
        postgres.start()
        postgres.wait_ready()
        lost = before - _known(ground)
        for name in PROCESSES:
            ground.unit(name).start()
        for name in PROCESSES:
            ground.unit(name).wait_ready()
    logged = {message.event_id for message in ground.evidence.logged()}
    ground.figures["events lost"] = f"{len(lost)}, {len(lost & logged)} of them in Kafka"


def _known(ground: Ground) -> set[str]:
    return {row.event_id for row in ground.evidence.stored(ground.mark)}


def _data_directory(ground: Ground) -> Path:
    [(directory,)] = ground.evidence.rows("SHOW data_directory")
    return Path(directory)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # noqa: S603, S607


SCENARIOS = (
    Scenario(
        name="add-handler",
        title="a handler is added under load",
        play=add_a_handler,
        after=the_new_handler_has_all,
    ),
    Scenario(
        name="purge-and-reset",
        title="receipts are purged, then the group's offsets reset to the beginning",
        before=some_history,
        play=purge_and_reset,
        quick=True,
    ),
)

# Last of all: what it loses counts as another producer's for as long as the stack lives.
RESTORE = Scenario(
    name="restore",
    title="PostgreSQL is set back by five seconds",
    play=restore,
)
