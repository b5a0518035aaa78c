"""Starts again what dies, a little later each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from devtools.localstack.unit import Unit

__all__ = ["TICK", "Keeper", "KeeperThread", "RestartDelay"]

TICK = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class RestartDelay:
    """Seconds before a restart, doubling; forgotten once a program has lived for `stable_after`."""

    first: float = 0.2
    longest: float = 5.0
    stable_after: float = 10.0

    def after(self, seconds: float) -> float:
        return min(max(self.first, seconds * 2), self.longest)


class Keeper:
    """Watches units; `tick` is called several times a second."""

    def __init__(
        self,
        units: list[Unit],
        *,
        on_death: Callable[[Unit], None] = lambda _: None,
        on_restart: Callable[[Unit], None] = lambda _: None,
        backoff: RestartDelay | None = None,
    ) -> None:
        self.restarts = {unit.name: 0 for unit in units}
        self._units = units
        self._on_death = on_death
        self._on_restart = on_restart
        self._backoff = backoff or RestartDelay()
        self._delay = {unit.name: 0.0 for unit in units}
        self._due: dict[str, float] = {}
        self._started = {unit.name: time.monotonic() for unit in units}

    def tick(self) -> bool:
        """Look at every unit once; whether one has died or was started again."""
        changed = False
        for unit in self._units:
            if unit.wanted and not unit.is_alive():
                changed = self._revive(unit) or changed
        return changed

    def _revive(self, unit: Unit) -> bool:
        now = time.monotonic()
        if unit.name not in self._due:
            if now - self._started[unit.name] > self._backoff.stable_after:
                self._delay[unit.name] = 0.0
            self._delay[unit.name] = self._backoff.after(self._delay[unit.name])
            self._due[unit.name] = now + self._delay[unit.name]
            self._on_death(unit)
            return True
        if now < self._due[unit.name]:
            return False
        del self._due[unit.name]
        self.restarts[unit.name] += 1
        self._started[unit.name] = now
        unit.revive()
        self._on_restart(unit)
        return True


class KeeperThread:
    """A keeper with a thread of its own, for a stack that lives inside another program."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(TICK):
            self.keeper.tick()

    def stop(self) -> None:
        """Return when nothing is started again any more."""
        self._end.set()
        self._thread.join()
