"""The tables of scenarios and mutants agree with each other, and recovery is told from the backlog."""

from __future__ import annotations

from typing import Any

from devtools.chaos.evidence import PendingWork
from devtools.chaos.markdown import measured_on
from devtools.chaos.mutants import BREAKS
from devtools.chaos.mutation import MUTANTS
from devtools.chaos.notifications.checker import TITLES
from devtools.chaos.scenarios import SCENARIOS
from devtools.chaos.weather import WeatherWatch

NAMES = [scenario.name for scenario in SCENARIOS]


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_broken_guard_has_a_scenario_that_must_show_it() -> None:
    assert {mutant.scenario for mutant in MUTANTS} <= set(NAMES)
    assert {name for mutant in MUTANTS for name in mutant.breaks} == set(BREAKS)
    assert {mutant.invariant for mutant in MUTANTS} <= {f"I{n}" for n in range(1, 13)} | set(TITLES)


def watch(*ages: float) -> WeatherWatch:
    return WeatherWatch(
        [(float(moment), PendingWork(1, 1, age)) for moment, age in enumerate(ages)]
    )


class TestRecovery:
    def test_is_the_first_of_two_looks_that_found_nothing_old(self) -> None:
        seen = watch(0.1, 0.1, 9, 10, 0.5, 8, 0.5, 0.5, 0.5)
        assert seen.recovery(2, 3) == 3.0

    def test_never(self) -> None:
        assert watch(0.1, 0.1, 9, 10, 11).recovery(2, 2) is None

    def test_a_busy_machine_has_a_normal_of_its_own(self) -> None:
        assert watch(5, 5, 5, 30, 9, 9).recovery(3, 3) == 1.0
        assert watch(1, 1, 1, 30, 9, 9).recovery(3, 3) is None


def run(*, load: float, average: float) -> dict[str, Any]:
    machine = {
        "date": "2026-11-21T18:04:59+00:00",
        "cores": 2,
        "processor": "Xeon",
        "memory_gib": 24,
        "load_average_before": average,
        "load": load,
        "postgresql": {
            "server_version": "18.4",
            "fsync": "on",
            "synchronous_commit": "off",
            "full_page_writes": "on",
        },
    }
    return {"machine": machine, "commit": "abc", "quick": False}


def test_what_runs_were_measured_on_shows_where_they_differ() -> None:
    assert measured_on([run(load=0.3, average=4.6), run(load=1.0, average=41.2)]) == (
        "2026-11-21T18:04 UTC; commit abc; 2 cores of Xeon; 24 GiB;"
        " load average before a run 5 to 41; full lengths; --load 0.3, 1.0;"
        " PostgreSQL 18.4 with fsync on, synchronous_commit off, full_page_writes on"
    )
