"""The tables of scenarios and mutants agree with each other, and recovery is told from the backlog."""

from __future__ import annotations

from chaos.evidence import Backlog
from chaos.mutants import BREAKS
from chaos.mutation import MUTANTS
from chaos.scenarios import SCENARIOS
from chaos.weather import Watch

NAMES = [scenario.name for scenario in SCENARIOS]


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_broken_guard_has_a_scenario_that_must_show_it() -> None:
    assert {mutant.scenario for mutant in MUTANTS} <= set(NAMES)
    assert {name for mutant in MUTANTS for name in mutant.breaks} == set(BREAKS)
    assert {mutant.invariant for mutant in MUTANTS} <= {f"I{n}" for n in range(1, 11)}


def watch(*ages: float) -> Watch:
    return Watch([(float(moment), Backlog(1, 1, age)) for moment, age in enumerate(ages)])


class TestRecovery:
    def test_is_the_first_of_two_looks_that_found_nothing_old(self) -> None:
        seen = watch(0.1, 0.1, 9, 10, 0.5, 8, 0.5, 0.5, 0.5)
        assert seen.recovery(2, 3) == 3.0

    def test_never(self) -> None:
        assert watch(0.1, 0.1, 9, 10, 11).recovery(2, 2) is None

    def test_a_busy_machine_has_a_normal_of_its_own(self) -> None:
        assert watch(5, 5, 5, 30, 9, 9).recovery(3, 3) == 1.0
        assert watch(1, 1, 1, 30, 9, 9).recovery(3, 3) is None
