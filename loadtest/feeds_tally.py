"""What a run of the feeds is asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from loadtest.histogram import Histogram, milliseconds
from loadtest.sending import RequestTally, RunPlan

__all__ = ["LOST_SHOWN", "OPERATIONS", "AcceptedPost", "FeedsPlan", "FeedsTally"]

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
        self.under_way = self.checked = self.unwatched = self.lost = self.unchecked = 0
        self.examples: list[tuple[int, str]] = []
        self.seconds = 0.0

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
