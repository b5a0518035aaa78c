"""Users of feeds beside the orders, and what became of their feeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from devtools.demo.account import FeedsAccount
from devtools.feeders.history import FeedHistory, counted, impossible
from devtools.feeders.truth import compare_stored, lost, slices_settle, wrong_feeds
from devtools.feeders.users import feeding

__all__ = ["load", "observe"]

RATE = 40.0  # requests a second, about half of them reads
FOLLOWS = 4  # of each user, to begin with
ACTS = 45  # of each of the four threads, its 16 follows among them
SETTLE_SECONDS = 60.0
USERS = 16


def _users(seed: int) -> list[str]:
    """Those of a half: each knows what it has done."""
    return [f"user-{seed}-{number}" for number in range(USERS)]


@contextmanager
def load(base_url: str, *, seed: int) -> Iterator[FeedHistory]:
    """Users who post, follow, delete, unfollow and read until the end of the block."""
    users = _users(seed)
    with feeding(
        base_url, users, rate=RATE, threads=4, follows=FOLLOWS, at_least=ACTS, seed=seed
    ) as history:
        yield history


def observe(base_url: str, halves: Sequence[FeedHistory]) -> FeedsAccount:
    """What they did, and every feed compared with the truth once the fan-out is done."""
    late = 0 if slices_settle(SETTLE_SECONDS) else 1
    whole = FeedHistory(
        [change for half in halves for change in half.changes],
        [page for half in halves for page in half.pages],
    )
    users = [user for seed in range(1, len(halves) + 1) for user in _users(seed)]
    stored = compare_stored(users)
    return FeedsAccount(
        sent=len(whole.changes),
        answered={kind.value: count for kind, count in counted(whole.changes).items()},
        lost=sum(1 for _ in lost(whole)),
        read=len(whole.pages),
        impossible=sum(1 for _ in impossible(whole)),
        users=len(users),
        wrong=late + sum(1 for _ in wrong_feeds(base_url, users)),
        entries=stored.counts["right"],
        differences=stored.different,
    )
