"""What a scenario stands on: the running stack, the means to break it, and the record of both."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import redis

from devtools.chaos import load
from devtools.chaos.checker import Verdict
from devtools.chaos.evidence import Evidence, EvidenceMark
from devtools.chaos.history import Fault
from devtools.chaos.load import WriteAttempt
from devtools.chaos.misbehave import Switches
from devtools.feeders.history import FeedHistory
from devtools.localstack import LocalStack, Unit
from devtools.localstack.keeper import Keeper
from devtools.localstack.ports import Ports
from devtools.localstack.probes import http_answers
from devtools.localstack.state import CLONE
from devtools.localstack.unit import Program

__all__ = ["Ground", "GroundError", "Nurse", "changed"]

CATCH_SECONDS = 20.0
KEEP_INTERVAL = 0.2


class GroundError(AssertionError):
    """The scenario could not be played as written; its verdict would say nothing."""


@dataclass(slots=True)
class Ground:
    """One scenario's hands on the stack.

    prefix   begins every key of the scenario, so that its history is distinct from the others'
    quick    shorter outages, as in CI
    faults   what was broken and when; `fault` writes it
    figures  what the scenario wants to show beside the invariants
    foreign  ids of messages that did not come from the outbox
    lost_between  when the database forgot what was committed, on purpose
    stuck    events that had no effect when they should have had it, while something was broken
    fed      what users of feeds did and saw
    verdicts what the scenario had judged beside the twelve invariants
    broken   demands of the scenario itself that were not met
    """

    stack: LocalStack
    evidence: Evidence
    switches: Switches
    prefix: str
    mark: EvidenceMark
    quick: bool
    say: Callable[[str], None]
    directory: Path
    faults: list[Fault] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    zombies: dict[str, tuple[str, str]] = field(default_factory=dict)
    attempts: list[WriteAttempt] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    extra: list[Unit] = field(default_factory=list)
    lost_between: tuple[float, float] | None = None
    stuck: int = 0
    log_complete: bool = True
    fed: FeedHistory = field(default_factory=FeedHistory)
    cleanup: ExitStack = field(default_factory=ExitStack)  # closed after `after`
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # -- what is broken -----------------------------------------------------------------------

    @contextmanager
    def fault(self, name: str, *, repeats: bool = True) -> Iterator[None]:
        """Whatever happens inside is the reason for waiting, and for duplicates in Kafka unless
        `repeats` is False: then it does not touch any drain."""
        begin = time.time()
        self.say(f"  {name}")
        try:
            yield
        finally:
            self.faults.append(Fault(name, begin, time.time(), repeats))

    def demand(self, holds: bool, otherwise: str) -> None:
        """A condition of this scenario beside the twelve invariants."""
        if not holds:
            self.broken.append(otherwise)

    def seconds(self, whole: float, quick: float) -> float:
        """A duration, shorter in a quick run."""
        return quick if self.quick else whole

    # -- processes ----------------------------------------------------------------------------

    def unit(self, name: str) -> Unit:
        """A process or server of the stack, or one that `another` has started."""
        for unit in (*self.stack.units, *self.extra):
            if unit.name == name:
                return unit
        return self.stack.server(name)

    def kill(self, name: str, *, back_after: float = 0.5) -> None:
        """SIGKILL, and a new start."""
        with self.fault(f"SIGKILL {name}"), self.away(name):
            time.sleep(back_after)

    @contextmanager
    def away(self, *names: str) -> Iterator[None]:
        """Killed until the end of the block, then started and ready."""
        for name in names:
            self.unit(name).wanted = False
            self.unit(name).kill()
        try:
            yield
        finally:
            self._start_again(names)

    @contextmanager
    def stopped(self, *names: str) -> Iterator[None]:
        """Ended in their own way until the end of the block, then started and ready."""
        for name in names:
            self.unit(name).stop()
        try:
            yield
        finally:
            self._start_again(names)

    def _start_again(self, names: Sequence[str]) -> None:
        for name in names:
            self.unit(name).start()
        for name in names:
            self.unit(name).wait_ready()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP to the process and its children until the end of the block."""
        unit = self.unit(name)
        unit.pause()
        try:
            yield
        finally:
            unit.resume()

    @contextmanager
    def another(self, name: str, **environment: str) -> Iterator[Unit]:
        """One more process of a kind until the end of the block."""
        program = self.unit(name).program
        number = next(self._numbers)
        metrics = self.directory / f"metrics-{self.prefix.strip(':')}-{number}"
        metrics.mkdir()
        port = Ports(self.stack.state.ports).choose(f"{name}-extra-{self.prefix}{number}")
        command = tuple(
            part.replace("@%h", f"-{number}@%h").replace(str(program.port), str(port))
            for part in program.command
        )
        own = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "METRICS_PORT": str(port)}
        health = f"http://127.0.0.1:{port}/health"
        unit = Unit(
            replace(
                program,
                name=f"{name}-{number}",
                command=command,
                environment={**program.environment, **own, **environment},
                port=port,
                probe=lambda: http_answers(health),
                health=health,
                before_start=lambda: None,
                log=program.log.with_name(f"{name}-{number}.log"),
            )
        )
        unit.start()
        unit.wait_ready()
        self.extra.append(unit)
        try:
            yield unit
        finally:
            self.extra.remove(unit)
            unit.resume()
            unit.stop()

    @contextmanager
    def changed(self, names: Sequence[str], **environment: str) -> Iterator[None]:
        """Processes started again with a changed environment until the end of the block."""
        with changed([self.unit(name) for name in names], environment):
            yield

    def manage(self, *arguments: str, **environment: str) -> str:
        """What a `manage.py` command prints. Raises GroundError when it fails."""
        answer = subprocess.run(  # noqa: S603  (our own command)
            [sys.executable, "manage.py", *arguments],
            env={**self.stack.env, **environment},
            cwd=CLONE,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if answer.returncode:
            raise GroundError(f"manage.py {' '.join(arguments)}: {answer.stdout}{answer.stderr}")
        return answer.stdout.strip()

    def wake(self, name: str, *, watched: float = 4.0) -> None:
        """SIGCONT to what was given up long ago; what it changes within `watched` seconds is I7."""
        before = self.evidence.digest()
        self.unit(name).resume()
        time.sleep(watched)
        self.zombies[name] = before, self.evidence.digest()

    def kill_children(self, name: str) -> None:
        """SIGKILL to the children of a process, not to itself."""
        for child in psutil.Process(self.unit(name).pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)

    def catch_drain(self, name: str = "worker-outbox") -> int:
        """Freeze a drain's worker at a moment when it holds lanes; the pending events in them.

        The worker stays frozen. Raises GroundError if it could not be caught.
        """
        unit = self.unit(name)
        give_up = time.monotonic() + CATCH_SECONDS
        while time.monotonic() < give_up:
            if self.evidence.held_lanes():
                unit.pause()
                if caught := self.evidence.held_lanes():
                    return caught
                unit.resume()
            time.sleep(0.001)
        raise GroundError(f"{name} could not be killed in a batch")

    # -- events -------------------------------------------------------------------------------

    def write(
        self, *names: str, modes: Sequence[str] = (), padding: str = "", commit: bool = True
    ) -> WriteAttempt:
        """One transaction of ours, one event a name; `modes` and `padding` are those of the first
        events, the others have none."""
        keys = [self.prefix + name for name in names]
        all_modes = [*modes, *[""] * (len(keys) - len(modes))]
        paddings = [padding] + [""] * (len(keys) - 1)
        attempt = load.write(keys, modes=all_modes, paddings=paddings, commit=commit)
        self.attempts.append(attempt)
        return attempt

    def write_poison(self, name: str, mode: str) -> str:
        """One poisonous event; its id."""
        event_id = self.write(name, modes=[mode]).events[0].event_id
        self.poison.add(event_id)
        return event_id

    # -- waiting ------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], within: float, what: str) -> float:
        """Seconds until the condition held. Raises GroundError."""
        begin = time.monotonic()
        while not condition():
            if time.monotonic() - begin > within:
                raise GroundError(f"{what}: not within {within:.0f} s")
            time.sleep(0.05)
        return time.monotonic() - begin

    def wait_held(self, where: str) -> None:
        """Until a drain has run into an event that holds it."""
        self.wait(lambda: self.switches.is_on(f"held-{where}"), 15, f"a drain held {where}")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Events with a hold mode hold their drain until the end of the block."""
        for where in ("before", "after", "between", "effect"):
            self.switches.off(f"held-{where}")
        self.switches.on("hold")
        try:
            yield
        finally:
            self.switches.off("hold")

    def settled(self, within: float) -> bool:
        """Wait until every event of the scenario has had its effect."""
        give_up = time.monotonic() + within
        while self.evidence.unfinished(self.mark):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.2)
        return True

    def must_settle(self, within: float) -> None:
        """What has no effect by then is stuck (I6), whatever becomes of it later."""
        if not self.settled(within):
            self.stuck += self.evidence.unfinished(self.mark)

    def applied(self, attempt: WriteAttempt) -> bool:
        """Whether all events of an attempt are in the probe's log."""
        ids = [event.event_id for event in attempt.events]
        sql = "SELECT count(DISTINCT event_id) FROM probe_log WHERE event_id = ANY(%s::uuid[])"
        return bool(self.evidence.rows(sql, (ids,))[0][0] == len(ids))

    def redis(self) -> redis.Redis:
        """A client of the stack's Redis."""
        return redis.Redis.from_url(self.stack.env["REDIS_URL"], socket_timeout=3)


@contextmanager
def changed(units: Sequence[Unit], environment: Mapping[str, str]) -> Iterator[None]:
    """Units started again with a changed environment until the end of the block."""
    before = [unit.program for unit in units]
    _start_as(units, [replace(p, environment={**p.environment, **environment}) for p in before])
    try:
        yield
    finally:
        _start_as(units, before)


def _start_as(units: Sequence[Unit], programs: Sequence[Program]) -> None:
    for unit, program in zip(units, programs, strict=True):
        unit.resume()
        unit.stop()
        unit.program = program
        unit.start()
    for unit in units:
        unit.wait_ready()


class Nurse:
    """Starts again what dies by itself, as a service manager would."""

    def __init__(self, stack: LocalStack) -> None:
        self.restarts: Mapping[str, int] = {}
        self._keeper = Keeper(stack.units)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="chaos-nurse")

    def __enter__(self) -> Nurse:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self.restarts = self._keeper.restarts
        while not self._stop.wait(KEEP_INTERVAL):
            self._keeper.tick()
