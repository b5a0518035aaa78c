"""Which broken guard must be seen under which scenario, and as damage to which invariant."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from devtools.chaos import mutants
from devtools.chaos.notifications.sending import SENDERS
from devtools.chaos.run import ScenarioResult, ScenarioStage
from devtools.chaos.scenarios import SCENARIOS
from outbox.publish import nudge

__all__ = ["MUTANTS", "Mutant", "play_mutant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One broken guard.

    breaks     names of mutants.BREAKS; more than one where another guard would catch the first, or
               where the mistake has two halves
    processes  those that are started with it; () means only the writer, which is this process
    scenario   under which the checker must report damage
    invariant  that must be damaged
    redundant  why a second guard is broken too, and that it alone keeps the promise: then
               `breaks[0]` alone must not damage the invariant
    """

    name: str
    title: str
    breaks: tuple[str, ...]
    processes: tuple[str, ...]
    scenario: str
    invariant: str
    redundant: str = ""


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="row-locks",
        title="the lane lock replaced by row-level SKIP LOCKED",
        breaks=("row-locks",),
        processes=("worker-outbox",),
        scenario="overtaking",
        invariant="I3",
    ),
    Mutant(
        name="drain-descending",
        title="the drain sends the newest first",
        breaks=("drain-descending",),
        processes=("worker-outbox",),
        scenario="burst",
        invariant="I3",
    ),
    Mutant(
        name="idle-timeout-off",
        title="idle_in_transaction_session_timeout off",
        breaks=("idle-timeout-off",),
        processes=("worker-outbox",),
        scenario="frozen-holder",
        invariant="I6",
    ),
    Mutant(
        name="nudges-dropped",
        title="nudges dropped and beat stopped",
        breaks=("nudges-dropped",),
        processes=(),
        scenario="without-beat",
        invariant="I6",
    ),
    Mutant(
        name="gapless-off",
        title="gapless guarantee and purge off",
        breaks=("gapless-off",),
        processes=("worker-outbox",),
        scenario="refused-in-the-middle",
        invariant="I3",
    ),
    Mutant(
        name="position-check-off",
        title="a chunk is applied whatever the position says",
        breaks=("position-check-off",),
        processes=("worker-effects",),
        scenario="out-of-turn",
        invariant="I3",
    ),
    Mutant(
        name="chunk-dedupe-off",
        title="no look for repetitions inside a chunk",
        breaks=("chunk-dedupe-off",),
        processes=("worker-effects",),
        scenario="twice-in-a-chunk",
        invariant="I4",
    ),
    Mutant(
        name="receipts-off",
        title="receipts are written and not asked",
        breaks=("receipts-off",),
        processes=("worker-effects",),
        scenario="twice-in-two",
        invariant="I4",
    ),
    Mutant(
        name="one-statement",
        title="effect and receipts in one statement",
        breaks=("one-statement", "position-lock-off"),
        processes=("worker-effects",),
        scenario="two-copies",
        invariant="I4",
        redundant="the lock of the position lets only one copy in",
    ),
    Mutant(
        name="receipt-outcome-ignored",
        title="redrive does not ask whose receipt it was",
        breaks=("receipt-outcome-ignored",),
        processes=("worker-effects",),
        scenario="redriven-twice",
        invariant="I4",
    ),
    Mutant(
        name="parked-keys-off",
        title="nobody looks for a dead letter of the key",
        breaks=("parked-keys-off",),
        processes=("worker-effects",),
        scenario="behind-poison",
        invariant="I3",
    ),
    Mutant(
        name="right-half-first",
        title="the right half of a bisect first",
        breaks=("right-half-first", "position-check-off"),
        processes=("worker-effects",),
        scenario="poison-in-a-chunk",
        invariant="I3",
        redundant="the position refuses a half that begins behind it",
    ),
    Mutant(
        name="confirm-at-send",
        title="offset committed at send, with FLUSHALL",
        # The position has moved: a worker that looked at it would refuse every chunk.
        breaks=("confirm-at-send", "position-check-off"),
        processes=("bridge", "worker-effects"),
        scenario="flushed-on-the-way",
        invariant="I6",
    ),
    Mutant(
        name="hit-filter-off",
        title="a cached feed is shown without asking what has changed",
        breaks=("hit-filter-off",),
        processes=("web",),
        scenario="feeds-gone",
        invariant="I12",
    ),
    Mutant(
        name="finished-before-entries",
        title="a slice is finished before its entries commit",
        breaks=("finished-before-entries",),
        processes=("worker-effects",),
        scenario="feeds-before-entries",
        invariant="I11",
    ),
    Mutant(
        name="finished-unconfirmed",
        title="a slice is finished though Redis has not confirmed",
        breaks=("finished-unconfirmed",),
        processes=("worker-effects",),
        scenario="feeds-unconfirmed",
        invariant="I11",
    ),
    Mutant(
        name="entries-without-numbers",
        title="a clean-up does not ask for the follow's number",
        breaks=("entries-without-numbers",),
        processes=("worker-effects",),
        scenario="feeds-again",
        invariant="I11",
    ),
    Mutant(
        name="no-floor",
        title="a window is trimmed without a floor",
        breaks=("no-floor",),
        processes=("worker-effects",),
        scenario="feeds-window",
        invariant="I11",
    ),
    Mutant(
        name="fill-without-mark",
        title="a cached feed is stored whatever became of its mark",
        breaks=("fill-without-mark",),
        processes=("web",),
        scenario="feeds-slow-fill",
        invariant="I11",
    ),
    Mutant(
        name="key-without-run-id",
        title="a cached feed is believed whichever Redis it is from",
        breaks=("key-without-run-id",),
        processes=(
            "web",
            "worker-effects",
        ),
        scenario="feeds-older",
        invariant="I11",
    ),
    Mutant(
        name="threshold-alone",
        title="an author below the threshold is stored at once",
        breaks=("threshold-alone",),
        processes=("worker-effects",),
        scenario="feeds-threshold",
        invariant="I11",
    ),
    Mutant(
        name="late-results-written",
        title="a result is written whoever has the row by now",
        breaks=("late-results-written", "runs-go-on"),
        processes=("worker-notifications-high",),
        scenario="sender-frozen",
        invariant="N5",
        redundant="a run has given up before its leases end",
    ),
    Mutant(
        name="lease-unasked",
        title="nobody asks before a call whether the lease still holds",
        breaks=("lease-unasked",),
        processes=("worker-notifications-high",),
        scenario="frozen-before-sends",
        invariant="N2",
    ),
    Mutant(
        name="cancel-unconditional",
        title="a cancel does not ask for the status",
        breaks=("cancel-unconditional",),
        processes=("web",),
        scenario="cancel-meets-claim",
        invariant="N3",
    ),
    Mutant(
        name="tokens-after-claim",
        title="tokens are drawn for what is claimed already",
        breaks=("tokens-after-claim",),
        processes=("worker-notifications-high",),
        scenario="slow-pace",
        invariant="N4",
    ),
    Mutant(
        name="waiting-counts",
        title="a 429 uses up an attempt",
        breaks=("waiting-counts",),
        processes=(*SENDERS,),
        scenario="provider-asks-to-wait",
        invariant="N4",
    ),
    Mutant(
        name="limiter-per-process",
        title="each process keeps to the limit by itself",
        breaks=("limiter-per-process",),
        processes=("worker-notifications-high",),
        scenario="slow-pace",
        invariant="N7",
    ),
    Mutant(
        name="breaker-by-run",
        title="five failures in a row open a breaker, whatever came before",
        breaks=("breaker-by-run",),
        processes=("worker-notifications-high",),
        scenario="five-in-a-row",
        invariant="N8",
    ),
    Mutant(
        name="one-queue",
        title="who has waited longest goes first, whatever its priority",
        breaks=("one-queue",),
        processes=(*SENDERS,),
        scenario="high-among-low",
        invariant="N9",
    ),
    Mutant(
        name="seq-by-identity",
        title="a change of status is numbered when it is inserted",
        breaks=("seq-by-identity",),
        processes=("web",),
        scenario="commit-out-of-order",
        invariant="N10",
    ),
    Mutant(
        name="since-by-time",
        title="a client that reconnects is sent what is younger than the last change it saw",
        breaks=("since-by-time",),
        processes=("web",),
        scenario="commit-out-of-order",
        invariant="N10",
    ),
)


def play_mutant(stage: ScenarioStage, mutant: Mutant) -> ScenarioResult:
    """Its scenario with the guard broken; `ok` if the damage was seen where it was announced."""
    if mutant.redundant:
        alone = _play(stage, mutant, mutant.breaks[:1])
        damaged = [verdict.invariant for verdict in alone.verdicts if not verdict.ok]
        both = _play(stage, mutant, mutant.breaks)
        if mutant.invariant in damaged:
            both.broken.append(f"{mutant.breaks[0]} alone damages {mutant.invariant} too")
        both.redundant = f"{mutant.breaks[0]} alone: {mutant.invariant} holds, {mutant.redundant}; with {mutant.breaks[1]} too"
        return _judged(both, mutant)
    return _judged(_play(stage, mutant, mutant.breaks), mutant)


def _play(stage: ScenarioStage, mutant: Mutant, breaks: tuple[str, ...]) -> ScenarioResult:
    [scenario] = [scenario for scenario in SCENARIOS if scenario.name == mutant.scenario]
    stage.say(f"[bold magenta]mutant {' + '.join(breaks)}[/]")
    with ExitStack() as undo:
        if mutant.processes:
            names = ",".join(breaks)
            undo.enter_context(stage.changed(mutant.processes, CHAOS_MUTANTS=names))
        else:
            undo.callback(_restore_nudge, nudge.nudge)
            for name in breaks:
                mutants.break_guard(name)
        return stage.play(scenario)


def _restore_nudge(real: Callable[[], None]) -> None:
    nudge.nudge = real


def _judged(result: ScenarioResult, mutant: Mutant) -> ScenarioResult:
    """Turn the verdict round: damage is what is wanted."""
    damaged = {verdict.invariant for verdict in result.verdicts if not verdict.ok}
    result.expected = dict.fromkeys(damaged, f"the mutant {mutant.name}")
    result.mutant, result.announced, result.title = mutant.name, mutant.invariant, mutant.title
    if mutant.invariant not in damaged:
        seen = ", ".join(sorted(damaged)) or "no damage at all"
        result.broken.append(f"{mutant.invariant} should be damaged; seen: {seen}")
    return result
