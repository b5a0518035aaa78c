"""A run as figures: one dict for the JSON file, the page and the thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from eventsite.wording import counted
from loadtest.generator import GeneratorPlan
from loadtest.histogram import Histogram, milliseconds
from loadtest.tally import LoadTally
from loadtest.thresholds import METRICS_OF_CHECK, Threshold
from loadtest.verify import LoadVerdict

__all__ = ["LoadSummary", "finite", "public"]

LAG_WARNING_MS = 10.0
SECRETS = ("authorization", "api-key", "cookie")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """One run: what was asked, what came, and what it may not have done."""

    plan: GeneratorPlan
    tally: LoadTally
    verdict: LoadVerdict | None
    machine: Mapping[str, Any]
    thresholds: Sequence[Threshold] = ()

    def values(self) -> dict[str, float]:
        """Every metric of a threshold; milliseconds, counts, orders a second. nan: not known."""
        tally, verdict = self.tally, self.verdict
        effect = verdict.effect if verdict and verdict.effect else Histogram()
        return {
            **milliseconds(tally.latency),
            **milliseconds(tally.service, "service_"),
            **milliseconds(tally.lag, "lag_"),
            **milliseconds(effect, "e2e_"),
            **tally.shares(),
            "accepted": tally.accepted,
            "rate": tally.rate,
            **_found(verdict),
        }

    def crossed(self) -> list[Threshold]:
        values = self.values()
        return [each for each in self.thresholds if each.crossed(values)]

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
        """For JSON: nan as null, header values that may be secrets left out."""
        tally, plan = self.tally, self.plan
        begin = datetime.fromtimestamp(tally.begin_epoch, UTC)
        return {
            "configuration": asdict(plan) | {"headers": public(plan.headers)},
            "machine": dict(self.machine),
            "begin": begin.isoformat(timespec="seconds"),
            "seconds": round(tally.seconds, 3),
            "due": tally.due,
            "sent": tally.sent,
            "values": {name: finite(value) for name, value in self.values().items()},
            "errors_by_kind": dict(tally.errors.most_common()),
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


def finite(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else round(value, 3)


def _found(verdict: LoadVerdict | None) -> dict[str, float]:
    """What the look at accepted orders says; nan for what it did not look at."""
    if verdict is None:
        counts: dict[str, int | None] = dict.fromkeys(METRICS_OF_CHECK)
    else:
        counts = {name: getattr(verdict, name) for name in METRICS_OF_CHECK}
        if verdict.unchecked:
            counts |= dict.fromkeys(("lost", "missing"))
    return {name: math.nan if count is None else count for name, count in counts.items()}


def public(headers: Mapping[str, str]) -> dict[str, str]:
    """Without the values that may be secrets."""
    return {
        name: "…" if any(secret in name.lower() for secret in SECRETS) else value
        for name, value in headers.items()
    }


def _plain(verdict: LoadVerdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {
        "how": verdict.how,
        "lost": verdict.lost,
        "missing": verdict.missing,
        "without_effect": verdict.without_effect,
        "unchecked": verdict.unchecked,
        "duplicates": verdict.duplicates,
        "answered_twice": verdict.answered_twice,
        "stored_twice": verdict.stored_twice,
        "stored_without_answer": verdict.unanswered,
        "figures_different": verdict.figures,
        "waited_seconds": round(verdict.waited, 1),
        "examples_of_lost": [str(order_id) for order_id in verdict.examples],
    }
