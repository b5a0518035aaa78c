"""The kills of the second half: SIGKILL, then the stack starts the process anew, from nothing but
what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from devtools.demo.account import DRAIN
from devtools.localstack import LocalStack, LocalStackError
from devtools.testing.measure import held_lanes_backlog

__all__ = ["Faults", "kill_everything"]

CATCH_SECONDS = 15.0
REVIVED_WITHIN = 15.0  # seconds


@dataclass(slots=True)
class Faults:
    """What was done. `caught_events`: events in the hands of the drain when it was killed;
    `others`: deaths that were somebody else's doing, by process."""

    done: list[str] = field(default_factory=list)
    others: Mapping[str, int] = field(default_factory=dict)
    caught_events: int | None = None


def kill_everything(stack: LocalStack, faults: Faults, *, say: Callable[[str], None]) -> None:
    """Kill the effects' worker, the bridge and the drain's worker, three seconds apart."""
    time.sleep(1.0)
    _kill_and_wait(stack, "worker-effects", faults, say)
    time.sleep(3.0)
    _kill_and_wait(stack, "bridge", faults, say)
    time.sleep(3.0)
    faults.caught_events = _freeze_in_a_batch(stack)
    _kill_and_wait(stack, DRAIN, faults, say)


def _kill_and_wait(
    stack: LocalStack, name: str, faults: Faults, say: Callable[[str], None]
) -> None:
    process = stack.process(name)
    process.kill()
    say(f"{name} was killed (SIGKILL)")
    faults.done.append(name)
    give_up = time.monotonic() + REVIVED_WITHIN
    while not process.is_alive():  # the stack keeps its processes up, whoever killed them
        if time.monotonic() > give_up:
            raise LocalStackError(f"{name} was not started again.")
        time.sleep(0.05)
    say(f"{name} was started again")


def _freeze_in_a_batch(stack: LocalStack) -> int | None:
    """Stop the drain's worker (SIGSTOP) at a moment when it holds lanes; the pending events in
    them. None if it could not be caught."""
    process = stack.process(DRAIN)
    give_up = time.monotonic() + CATCH_SECONDS
    while time.monotonic() < give_up:
        if held_lanes_backlog():
            process.pause()
            if caught := held_lanes_backlog():
                return caught
            process.resume()
        time.sleep(0.001)
    return None
