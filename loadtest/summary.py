"""A run of orders as figures, as words, as JSON and against thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eventsite.wording import counted
from loadtest.generator import GeneratorPlan
from loadtest.histogram import Histogram, milliseconds
from loadtest.tally import LoadTally, Slot
from loadtest.thresholds import METRICS_OF_CHECK
from loadtest.verify import LoadVerdict
from loadtest.words import RunReport, finite, in_ms, row_of_times

__all__ = ["LoadSummary", "progress_of_orders"]

LAG_WARNING_MS = 10.0


def progress_of_orders(tally: LoadTally) -> str:
    slots = tally.timeline.slots
    recent = slots[-2] if len(slots) > 1 else Slot()  # the last one is not over
    p50, p99 = (in_ms(recent.latency.percentile(percent) / 1000) for percent in (50, 99))
    return (
        f"{recent.answered / tally.timeline.width:>7,.0f}/s  p50 {p50}  p99 {p99}  under way {tally.under_way}"
        f"  errors {tally.errors.total()}  not sent {tally.not_sent}"
    )


@dataclass(frozen=True)
class LoadSummary(RunReport[GeneratorPlan, LoadTally]):
    """Also what became of the accepted orders."""

    verdict: LoadVerdict | None = None

    @property
    def effect(self) -> Histogram:
        """From the answer to the figures, microseconds; empty where that is not known."""
        return self.verdict.effect if self.verdict and self.verdict.effect else Histogram()

    def values(self) -> dict[str, float]:
        return {
            **self.tally.values(),
            **milliseconds(self.effect, "e2e_"),
            **_found(self.verdict),
        }

    def lines(self) -> list[str]:
        tally = self.tally
        origin = "the last answer" if self.plan.closed else "the intended start"
        return [
            row_of_times(f"latency, from {origin}", tally.latency),
            row_of_times("service time, from its sending", tally.service),
            row_of_times("lag of the generator itself", tally.lag),
            row_of_times("end to end, answer to figures", self.effect),
            f"{tally.accepted:,} of {tally.due:,} orders accepted, {self.sent_and_failed()}",
            self._loss(),
            *(f"Note: {warning}" for warning in self.warnings()),
        ]

    def _loss(self) -> str:
        found = self.verdict
        if found is None:
            return "loss: not looked for"
        if found.how == "http":
            asked = self.tally.accepted - found.unchecked
            return (
                f"not stored {found.missing} of {asked:,} orders asked for over HTTP; order ids answered "
                f"twice {found.answered_twice}; effects and orders stored twice: not checked"
            )
        return (
            f"lost {found.lost} ({found.missing} not stored, {found.without_effect} without effect); "
            f"duplicates {found.duplicates}; figures that differ from the recount "
            f"{found.figures}; stored without an answer {found.unanswered}; "
            f"every effect looked for during {found.waited:.1f} s"
        )

    def warnings(self) -> list[str]:
        """What keeps the figures from meaning what they seem to."""
        tally, values = self.tally, self.values()
        found = []
        if values["lag_p99"] > LAG_WARNING_MS and not self.plan.closed:
            found.append(
                f"The generator itself was late: p99 {values['lag_p99']:.1f} ms. Part of the latency "
                "is its own; give it a processor for itself, or lower --rate."
            )
        if tally.not_sent:
            found.append(
                f"Not sent: {counted(tally.not_sent, 'request')}, because {self.plan.max_in_flight} "
                "were under way (--max-in-flight). No percentile includes them."
            )
        if self.plan.closed:
            found.append(
                "Closed loop: a slow answer delays the next request, so the percentiles hide waiting."
            )
        if tally.ended_early:
            found.append(f"Ended early, after {tally.seconds:.0f} s of {self.plan.seconds:.0f} s.")
        if self.verdict is None:
            found.append("Accepted orders were not looked for (--check none).")
        elif self.verdict.unchecked:
            found.append(
                f"The server did not answer about {counted(self.verdict.unchecked, 'order')}, so how many are"
                " missing is not known."
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        tally, begin = self.tally, datetime.fromtimestamp(self.tally.epoch + self.tally.begin, UTC)
        return {
            **super().as_dict(),
            "begin": begin.isoformat(timespec="seconds"),
            "due": tally.due,
            "sent": tally.sent,
            "verdict": _plain(self.verdict),
            "thresholds": [
                {"threshold": each.text, "crossed": each.crossed(self.values())}
                for each in self.thresholds
            ],
            "warnings": self.warnings(),
            "timeline": {
                "seconds_per_slot": tally.timeline.width,
                "slots": [
                    {
                        "due": slot.due,
                        "answered": slot.answered,
                        "errors": slot.errors,
                        "not_sent": slot.not_sent,
                        **{
                            name: finite(slot.latency.percentile(percent) / 1000)
                            for name, percent in (("p50", 50.0), ("p99", 99.0), ("max", 100.0))
                        },
                    }
                    for slot in tally.timeline.slots
                ],
            },
            "latency_buckets_us": list(tally.latency.buckets()),
        }


def _found(verdict: LoadVerdict | None) -> dict[str, float]:
    """What the look at accepted orders says; nan for what it did not look at."""
    if verdict is None:
        counts: dict[str, int | None] = dict.fromkeys(METRICS_OF_CHECK)
    else:
        counts = {name: getattr(verdict, name) for name in METRICS_OF_CHECK}
        if verdict.unchecked:
            counts |= dict.fromkeys(("lost", "missing"))
    return {name: math.nan if count is None else count for name, count in counts.items()}


def _plain(verdict: LoadVerdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    counts = (
        *("lost", "missing", "without_effect", "unchecked"),
        *("duplicates", "answered_twice", "stored_twice"),
    )
    return {
        "how": verdict.how,
        **{name: getattr(verdict, name) for name in counts},
        "stored_without_answer": verdict.unanswered,
        "figures_different": verdict.figures,
        "waited_seconds": round(verdict.waited, 1),
        "examples_of_lost": [str(order_id) for order_id in verdict.examples],
    }
