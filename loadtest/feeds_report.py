"""A run of the feeds as words, as JSON and against thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.feeds_tally import OPERATIONS, FeedsPlan, FeedsTally
from loadtest.histogram import PERCENTILES, Histogram
from loadtest.summary import finite, public
from loadtest.thresholds import Threshold
from loadtest.words import crossed, row_of_times, threshold_lines, titles_of_times

__all__ = ["METRICS_OF_FEEDS", "FeedsProgress", "FeedsReport"]

METRICS_OF_FEEDS = tuple(FeedsTally().values())
EVERY_SECONDS = 10
WIDTH = 28  # of the titles of rows


class FeedsProgress:
    """A line each tenth second."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._calls = 0

    def show(self, tally: FeedsTally) -> None:
        """Called about once a second."""
        self._calls += 1
        if self._calls % EVERY_SECONDS == 0:
            self._say(
                f"{self._calls:>5} s  {tally.answered:,} good answers, {len(tally.posts):,} posts,"
                f" {tally.errors.total():,} errors, {tally.under_way:,} under way"
            )


@dataclass(frozen=True, slots=True)
class FeedsReport:
    """What was asked, what came, and what it may not have done."""

    plan: FeedsPlan
    tally: FeedsTally
    machine: Mapping[str, Any]
    thresholds: Sequence[Threshold] = ()

    def crossed(self) -> list[Threshold]:
        """The thresholds the run crossed."""
        return crossed(self.thresholds, self.tally.values())

    def in_words(self) -> str:
        """For people."""
        tally = self.tally
        rows = [(name, tally.latency[name]) for name in OPERATIONS]
        rows.append(("post until a feed shows it", tally.lag))
        lines = [titles_of_times(PERCENTILES, width=WIDTH), *(_row(*row) for row in rows)]
        kinds = "".join(f"; {kind} {count:,}" for kind, count in tally.errors.most_common())
        values = tally.values()
        lines += [
            f"{tally.answered:,} of {tally.due:,} requests well answered,"
            f" {values['rate']:,.1f}/s over {tally.seconds:.1f} s; not sent {tally.not_sent:,};"
            f" errors {tally.errors.total():,}{kinds}",
            f"lost {tally.lost:,} of {tally.checked:,} looks of followers for {len(tally.posts):,}"
            f" posts; the lag of {tally.lag.count:,} was measured, of {tally.unwatched:,} not",
        ]
        if tally.unchecked:
            lines.append(
                f"The server did not answer about {tally.unchecked:,}, so how many are lost is not known."
            )
        lines += [f"lost: post {post} in the feed of {user}" for post, user in tally.examples]
        lines += threshold_lines(self.thresholds, values)
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nan as null, header values that may be secrets left out."""
        tally, plan = self.tally, self.plan
        return {
            "configuration": asdict(plan) | {"headers": public(plan.headers)},
            "machine": dict(self.machine),
            "seconds": round(tally.seconds, 3),
            "values": {name: finite(value) for name, value in tally.values().items()},
            "latency_ms": {
                name: {
                    "count": each.count,
                    **{key: finite(each.percentile(at) / 1000) for key, at in PERCENTILES.items()},
                }
                for name, each in (*tally.latency.items(), ("lag", tally.lag))
            },
            "errors_by_kind": dict(tally.errors.most_common()),
            "checked": tally.checked,
            "unchecked": tally.unchecked,
            "unwatched": tally.unwatched,
            "examples_of_lost": [
                {"post_id_str": str(post), "user_id": user} for post, user in tally.examples
            ],
        }


def _row(title: str, times: Histogram) -> str:
    return row_of_times(title, times, PERCENTILES.values(), width=WIDTH)
