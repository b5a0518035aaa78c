"""Users of feeds beside the faults, and what became of their feeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from devtools.chaos.ground import Ground
from devtools.chaos.history import FeedsHistory
from devtools.chaos.scenarios.base import Scenario
from devtools.feeders.history import FeedHistory, impossible
from devtools.feeders.truth import (
    compare_stored,
    lost,
    slices_settle,
    wrong_feeds,
    wrong_numbers,
)
from devtools.feeders.users import feeding

__all__ = ["compared", "users_act"]

USERS = 24
SETTLE_SECONDS = 60.0


def _users(ground: Ground) -> list[str]:
    number = ground.prefix.strip(":")
    return [f"s{number}-user-{each}" for each in range(USERS)]


@contextmanager
def users_act(scenario: Scenario, ground: Ground, share: float) -> Iterator[None]:
    """Users of feeds act until the end of the block, if the scenario has any. `share` of their rate."""
    if not scenario.feeders:
        yield
        return
    url, rate = ground.stack.base_url, scenario.feeders * share
    with feeding(url, _users(ground), rate=rate, threads=3, mix=scenario.mix, follows=3) as history:
        yield
    ground.fed.changes += history.changes
    ground.fed.pages += history.pages


def compared(scenario: Scenario, ground: Ground) -> FeedsHistory:
    """What users saw, and every feed against the truth once the fan-out is done."""
    if scenario.feeders is None:
        return FeedsHistory()
    history = ground.fed
    users = sorted(
        {name for change in history.changes for name in (change.user, change.author)} - {""}
    )
    wrong = [] if slices_settle(SETTLE_SECONDS) else ["slices are open that nobody finishes"]
    wrong += lost(history)
    wrong += wrong_feeds(ground.stack.base_url, users)
    wrong += [
        f"entry {each.post_id} of {each.user_id} is {each.what}"
        for each in compare_stored(users).differences
    ]
    wrong += wrong_numbers(users)
    hits = sum(page.hit for page in history.pages)
    ground.figures["feeds"] = (
        f"{len(history.changes)} changes, {len(history.pages)} pages, {hits} from the cache"
    )
    return FeedsHistory(
        changes=len(history.changes),
        pages=len(history.pages),
        users=len(users),
        wrong=wrong,
        impossible=list(impossible(FeedHistory(history.changes, history.pages))),
    )
