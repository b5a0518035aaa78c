"""What a run of the feeds is asked for, and what came of it: as figures, as words and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from loadtest.histogram import PERCENTILES, Histogram, milliseconds
from loadtest.sending import RequestTally, RunPlan
from loadtest.words import RunReport, finite, row_of_times

__all__ = [
    "LOST_SHOWN",
    "METRICS_OF_FEEDS",
    "AcceptedPost",
    "FeedsPlan",
    "FeedsReport",
    "FeedsTally",
    "progress_of_feeds",
]

OPERATIONS = ("post", "read", "follow", "unfollow")
LOST_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsPlan(RunPlan):
    """users     of the run; each follows `follows` others, the popular ones more often
    sample    followers of each post that it is looked for with
    watched   posts whose lag is measured at a time
    settle    seconds for a post to be in a feed
    """

    users: int = 500
    follows: int = 10
    sample: int = 3
    watched: int = 8
    settle: float = 60.0


class AcceptedPost(msgspec.Struct, frozen=True, gc=False):
    """A post that was promised, when (time.perf_counter), and who is to see it."""

    post_id: int
    accepted_at: float
    followers: tuple[str, ...]


class FeedsTally(RequestTally):
    """Counts and times of one run, in microseconds.

    latency   by operation, from the moment a request was due to its good answer
    lag       from the answer to a post until a follower's feed shows it, of each that was watched
    checked   pairs of a post and a follower whose feed was looked at in the end
    lost      those of them that had not the post: (post, follower), the first ones
    """

    def __init__(self) -> None:
        super().__init__()
        self.latency = {operation: Histogram() for operation in OPERATIONS}
        self.lag = Histogram()
        self.posts: list[AcceptedPost] = []
        self.checked = self.unwatched = self.lost = self.unchecked = 0
        self.examples: list[tuple[int, str]] = []

    @property
    def answered(self) -> int:
        """Good answers."""
        return sum(each.count for each in self.latency.values())

    def values(self) -> dict[str, float]:
        """By the names of loadtest/thresholds.py, as far as they mean something here; milliseconds,
        counts, requests a second. `e2e` is the lag, `accepted` counts posts."""
        whole = Histogram()
        for each in self.latency.values():
            whole.add(each)
        return {
            **milliseconds(whole, ""),
            **milliseconds(self.lag, "e2e_"),
            **self.shares(),
            "accepted": len(self.posts),
            "rate": self.answered / max(self.seconds, 0.001),
            "lost": float("nan") if self.unchecked else self.lost,
        }


METRICS_OF_FEEDS = tuple(FeedsTally().values())


def progress_of_feeds(tally: FeedsTally) -> str:
    return (
        f"{tally.answered:,} good answers, {len(tally.posts):,} posts,"
        f" {tally.errors.total():,} errors, {tally.under_way:,} under way"
    )


class FeedsReport(RunReport[FeedsPlan, FeedsTally]):
    """Also which posts which followers did not see."""

    def lines(self) -> list[str]:
        tally = self.tally
        lines = [
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
        return lines + [f"lost: post {post} in the feed of {user}" for post, user in tally.examples]

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
