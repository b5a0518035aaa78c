"""Effects and drains that misbehave when an event says so; installed by the app's start.

An event's `mode`, one or several with commas between them:
raise       its effect fails until the switch `healed` is on
exit        its effect ends the process, until `healed`
hang        its effect never returns, until `healed`
hold        a drain that has it in its batch waits before it sends, while the switch `hold` is on
hold-after  the same after everything is acknowledged, before it is settled
hold-effect an effect that has done its work waits before its transaction goes on
hold-next   the same between this message and the next of the batch

Switches that are on hold what goes on in feeds, and each says so by `held-…`:
stop-before-KIND  a worker that has claimed slices of this kind, before it writes
stop-after-KIND   the same when their entries are committed and the caches are not updated
stop-fill         a web process that has read feeds and not stored them in the cache

The switch `fail-all` fails every effect of the probe. Switches are files of CHAOS_DIRECTORY, so
that they outlive every server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from devtools.chaos.environment import directory
from devtools.probe import services as probe_services
from feeds.fanout import claims, slices, work
from feeds.fanout.slices import SliceBatch, WrittenSlices
from feeds.models import SliceKind
from feeds.reading.reads import Reads
from outbox.envelope import EventEnvelope
from outbox.kafka import producer
from outbox.kafka.producer import BatchDelivery, OutgoingMessage

__all__ = ["Misbehaviour", "Switches", "install"]

LONGEST_HOLD = 60.0
SLICE_LEASE_SECONDS = 4.0  # nobody waits half a minute for the slices of a worker that was killed


class Misbehaviour(Exception):
    """The event asked for it."""


class Switches:
    """Files that say what is on; shared by all processes of a run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def on(self, name: str) -> None:
        (self._directory / name).touch()

    def off(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def is_on(self, name: str) -> bool:
        return (self._directory / name).exists()

    def on_first(self, name: str) -> bool:
        """Whether it was off until now, for one of several processes that ask at once."""
        try:
            (self._directory / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class _Marks(msgspec.Struct):
    mode: str = ""


_decoder = msgspec.json.Decoder(_Marks)


def _modes(payload: str | bytes) -> set[str]:
    try:
        return {mode for mode in _decoder.decode(payload).mode.split(",") if mode}
    except (msgspec.DecodeError, UnicodeEncodeError):
        return set()


def install() -> None:
    """Wrap the probe's effect and the producer of this process."""
    switches = Switches(directory())
    probe_services.append_entries = _misbehaving(probe_services.append_entries, switches)  # type: ignore[assignment]
    producer.send = _holding(producer.send, switches)
    producer._produce = _holding_between(producer._produce, switches)
    for kind, writer in work._WRITERS.items():
        work._WRITERS[kind] = _holding_slices(kind, writer, switches)
    Reads.feeds = _holding_fills(Reads.feeds, switches)  # type: ignore[assignment,method-assign]
    module: Any
    for module in (claims, slices):
        module.LEASE_SECONDS = SLICE_LEASE_SECONDS


def _misbehaving(
    append: Callable[[Sequence[EventEnvelope]], None], switches: Switches
) -> Callable[[Sequence[EventEnvelope]], None]:
    def append_entries(envelopes: Sequence[EventEnvelope]) -> None:
        if switches.is_on("fail-all"):
            raise Misbehaviour("the handler fails for everyone")
        modes = {mode for envelope in envelopes for mode in _modes(envelope.payload)}
        if modes and not switches.is_on("healed"):
            _misbehave(modes)
        append(envelopes)
        if "hold-effect" in modes:
            _hold(switches, "effect")

    return append_entries


def _misbehave(modes: set[str]) -> None:
    if "raise" in modes:
        raise Misbehaviour("this event is poison")
    if "exit" in modes:
        os._exit(1)
    if "hang" in modes:
        time.sleep(3600)


def _hold(switches: Switches, where: str, switch: str = "hold") -> None:
    """Say that we are there, and wait until the switch is off."""
    give_up = time.monotonic() + LONGEST_HOLD
    if switches.is_on(switch):
        switches.on(f"held-{where}")
        while switches.is_on(switch) and time.monotonic() < give_up:
            time.sleep(0.01)


def _holding(
    send: Callable[..., BatchDelivery], switches: Switches
) -> Callable[..., BatchDelivery]:
    def holding_send(messages: Sequence[OutgoingMessage], *, timeout: float) -> BatchDelivery:
        modes = {mode for message in messages for mode in _modes(message.value)}
        if "hold" in modes:
            _hold(switches, "before")
        delivery = send(messages, timeout=timeout)
        if "hold-after" in modes:
            _hold(switches, "after")
        return delivery

    return holding_send


def _holding_between(produce: Callable[..., bool], switches: Switches) -> Callable[..., bool]:
    def holding_produce(client: Any, message: OutgoingMessage, *rest: Any) -> bool:
        taken = produce(client, message, *rest)
        if "hold-next" in _modes(message.value):
            _hold(switches, "between")
            client.poll(0)
        return taken

    return holding_produce


def _holding_slices(
    kind: SliceKind, write: Callable[[SliceBatch], WrittenSlices], switches: Switches
) -> Callable[[SliceBatch], WrittenSlices]:
    def holding_write(batch: SliceBatch) -> WrittenSlices:
        _hold(switches, f"before-{kind}", f"stop-before-{kind}")
        written = write(batch)
        _hold(switches, f"after-{kind}", f"stop-after-{kind}")
        return written

    return holding_write


def _holding_fills(feeds: Callable[[Reads], Any], switches: Switches) -> Callable[[Reads], Any]:
    def holding_feeds(self: Reads) -> Any:
        found = feeds(self)
        if found:
            _hold(switches, "fill", "stop-fill")
        return found

    return holding_feeds
