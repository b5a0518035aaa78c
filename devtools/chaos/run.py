"""Plays one scenario on a running stack and has its history judged."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection

from devtools.chaos.checker import Verdict, judge
from devtools.chaos.evidence import Evidence
from devtools.chaos.feeds import compared, users_act
from devtools.chaos.ground import Ground, Nurse, changed
from devtools.chaos.history import History
from devtools.chaos.misbehave import Switches
from devtools.chaos.scenarios import Scenario
from devtools.chaos.weather import Load, WeatherWatch, steady_load, watch
from devtools.localstack import LocalStack
from eventsite.reports import recount
from orders.events import ORDERS_CREATED_TOPIC

__all__ = ["ScenarioResult", "ScenarioStage"]

WARM_SECONDS = 2.0
CALM_SECONDS = 1.0


@dataclass(slots=True)
class ScenarioResult:
    """One line of the table."""

    scenario: str
    title: str
    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    expected: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    mutant: str = ""
    announced: str = ""  # the invariant that the mutant must damage
    redundant: str = ""  # which guard alone would have kept it

    @property
    def ok(self) -> bool:
        """Every invariant held, or its damage is what the scenario says is lost; and was played."""
        damaged = {verdict.invariant for verdict in self.verdicts if not verdict.ok}
        return not self.broken and bool(self.verdicts) and damaged <= set(self.expected)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


@dataclass(slots=True)
class ScenarioStage:
    """A stack that is up, and where scenarios keep their files."""

    stack: LocalStack
    directory: Path
    quick: bool
    say: Callable[[str], None]
    load: float = 1.0  # share of the scenarios' rates
    _number: int = 0

    @contextmanager
    def changed(self, names: Sequence[str], **environment: str) -> Iterator[None]:
        """Processes of the stack started again with a changed environment until the end."""
        with changed([self.stack.process(name) for name in names], environment):
            yield

    def play(self, scenario: Scenario) -> ScenarioResult:
        """Load, faults, recovery, settling, verdict. Never raises for what the scenario does."""
        self._number += 1
        begin = time.monotonic()
        self.say(f"[bold]{scenario.name}[/]: {scenario.title}")
        result = ScenarioResult(
            scenario.name, scenario.title, expected=dict(scenario.expected_damage)
        )
        evidence = Evidence(self.stack.env["DATABASE_URL"])
        switches = Switches(self.directory)
        for name in ("hold", "healed", "fail-all"):
            switches.off(name)
        ground = Ground(
            stack=self.stack,
            evidence=evidence,
            switches=switches,
            prefix=f"{self._number}:",
            mark=evidence.mark(),
            quick=self.quick,
            say=self.say,
            directory=self.directory,
            log_complete=scenario.log_complete,
        )
        try:
            with Nurse(self.stack):
                scenario.before(ground)
                ground.mark = evidence.mark()
                history = self._history(scenario, ground)
            result.verdicts = [*judge(history), *ground.verdicts]
        except Exception as error:  # noqa: BLE001  (the next scenario is still to be played)
            result.broken.append(f"{type(error).__name__}: {error}")
            self.say(traceback.format_exc())
            # What it left unfinished would count as the next one's damage.
            with suppress(Exception):
                ground.settled(scenario.settle_within)
        result.broken += ground.broken
        result.figures = ground.figures
        result.seconds = round(time.monotonic() - begin, 1)
        self._tell(result)
        return result

    def _history(self, scenario: Scenario, ground: Ground) -> History:
        with watch(ground.evidence, ground.mark) as seen, ground.cleanup:
            found = self._play_under_load(scenario, ground, seen)
            ground.settled(_patience(scenario, ground))
            scenario.after(ground)
            ground.settled(_patience(scenario, ground))
        unsettled = ground.evidence.unfinished(ground.mark)
        recovery = _recovery(seen, ground)
        ground.figures["peak backlog"] = str(seen.peak())
        if found.bought.sent:
            ground.figures["orders"] = found.bought.summary()
        return self._read(scenario, ground, found, unsettled, recovery)

    def _play_under_load(self, scenario: Scenario, ground: Ground, seen: WeatherWatch) -> Load:
        writer_url = scenario.writer_url(ground)
        with writer_url if writer_url is not None else nullcontext("") as url:
            if not scenario.rate:
                scenario.play(ground)
                return Load()
            users = users_act(scenario, ground, self.load)
            with (
                users,
                steady_load(
                    self.stack,
                    ground.prefix,
                    self.directory,
                    rate=scenario.rate * self.load,
                    orders_rate=max(1.0, scenario.orders_rate * self.load),
                    database_url=url,
                ) as found,
            ):
                time.sleep(WARM_SECONDS)
                scenario.play(ground)
                give_up = time.monotonic() + scenario.recover_within
                while _recovery(seen, ground) is None and time.monotonic() < give_up:
                    time.sleep(0.2)
                time.sleep(CALM_SECONDS)
        return found

    def _read(
        self,
        scenario: Scenario,
        ground: Ground,
        found: Load,
        unsettled: int,
        recovery: float | None,
    ) -> History:
        evidence, mark = ground.evidence, ground.mark
        connection.close()
        feeds = compared(scenario, ground)
        written = [
            event for attempt in (*found.attempts, *ground.attempts) for event in attempt.written()
        ]
        stored = evidence.stored(mark)
        known = {row.event_id for row in stored} | {event.event_id for event in written}
        tables = evidence.tables()
        tables["outbox_lane"] = _since(tables["outbox_lane"], mark.lane_updates)
        return History(
            written=written,
            stored=stored,
            logged=[message for message in evidence.logged() if message.event_id in known],
            applied=evidence.applied(mark),
            receipts=evidence.receipts(mark, parked=False),
            effects={ORDERS_CREATED_TOPIC.name: frozenset(evidence.processed(mark))},
            parked=frozenset(evidence.receipts(mark, parked=True)),
            dead_letters=frozenset(evidence.dead_letters(mark)),
            poison=frozenset(ground.poison),
            faults=ground.faults,
            log_complete=ground.log_complete,
            figures_differ=recount.compare().different,
            orders=evidence.order_lives(found.bought.answered, stored),
            lost_between=ground.lost_between,
            unsettled=max(unsettled, ground.stuck),
            zombies=ground.zombies,
            recovery=recovery if scenario.rate else 0.0,
            recovery_bound=scenario.recover_within,
            tables=tables,
            feeds=feeds,
            lane_updates=scenario.lane_updates,
        )

    def _tell(self, result: ScenarioResult) -> None:
        self.say(
            f"  {'[green]ok[/]' if result.ok else '[bold red]FAILED[/]'} in {result.seconds} s"
        )
        for verdict in result.verdicts:
            if not verdict.ok:
                mark = "expected" if verdict.invariant in result.expected else "DAMAGE"
                self.say(f"  {mark} {verdict.invariant} {verdict.title}: {verdict.damage}")
                for example in verdict.examples:
                    self.say(f"      {example}")
        for text in result.broken:
            self.say(f"  [red]{text}[/]")


def _patience(scenario: Scenario, ground: Ground) -> float:
    """Seconds to wait for the rest; what is stuck already has been waited for."""
    return 5.0 if ground.stuck else scenario.settle_within


def _recovery(seen: WeatherWatch, ground: Ground) -> float | None:
    """Seconds from the last fault's end to a normal backlog; 0 where nothing was broken."""
    if not ground.faults:
        return 0.0
    begin = min(fault.begin for fault in ground.faults)
    return seen.recovery(begin, max(fault.end for fault in ground.faults))


def _since(table: Any, updated: int) -> Any:
    return type(table)(table.live, table.dead, max(0, table.updated - updated))
