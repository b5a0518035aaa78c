"""A run of the feeds as words, as JSON and against thresholds."""

from __future__ import annotations

from typing import Any

from loadtest.feeds_tally import OPERATIONS, FeedsPlan, FeedsTally
from loadtest.histogram import PERCENTILES
from loadtest.summary import finite
from loadtest.words import TITLES, RunReport, row_of_times

__all__ = ["METRICS_OF_FEEDS", "FeedsReport", "progress_of_feeds"]

METRICS_OF_FEEDS = tuple(FeedsTally().values())


def progress_of_feeds(tally: FeedsTally) -> str:
    return (
        f"{tally.answered:,} good answers, {len(tally.posts):,} posts,"
        f" {tally.errors.total():,} errors, {tally.under_way:,} under way"
    )


class FeedsReport(RunReport[FeedsPlan, FeedsTally]):
    """Also which posts which followers did not see."""

    def in_words(self) -> str:
        tally = self.tally
        lines = [
            TITLES,
            *(row_of_times(name, tally.latency[name]) for name in OPERATIONS),
            row_of_times("post until a feed shows it", tally.lag),
            f"{tally.answered:,} of {tally.due:,} requests well answered, {self.sent_and_failed()}",
            f"lost {tally.lost:,} of {tally.checked:,} looks of followers for {len(tally.posts):,}"
            f" posts; the lag of {tally.lag.count:,} was measured, of {tally.unwatched:,} not",
        ]
        if tally.unchecked:
            lines.append(
                f"The server did not answer about {tally.unchecked:,}, so how many are lost is not known."
            )
        lines += [f"lost: post {post} in the feed of {user}" for post, user in tally.examples]
        return "\n".join(lines + self.threshold_lines())

    def as_dict(self) -> dict[str, Any]:
        tally = self.tally
        return {
            **super().as_dict(),
            "latency_ms": {
                name: {
                    "count": each.count,
                    **{key: finite(each.percentile(at) / 1000) for key, at in PERCENTILES.items()},
                }
                for name, each in (*tally.latency.items(), ("lag", tally.lag))
            },
            "checked": tally.checked,
            "unchecked": tally.unchecked,
            "unwatched": tally.unwatched,
            "examples_of_lost": [
                {"post_id_str": str(post), "user_id": user} for post, user in tally.examples
            ],
        }
