"""The rare moments of feeds, made to happen: each is harmless with all guards in place, and shows the
damage when one is broken (mutation.py). Nobody else uses feeds meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from devtools.chaos.ground import Ground, GroundError
from devtools.chaos.scenarios.base import Play, Scenario
from devtools.chaos.scenarios.feeds import bring_back, keep_files
from devtools.feeders.truth import slices_settle
from devtools.feeders.users import FeederClient, Users
from devtools.testing.posts import create_posts
from devtools.testing.refusing_redis import refusing
from feeds.ids import EPOCH_MS, TIME_SHIFT
from feeds.services import NewPost

__all__ = ["SCENARIOS"]

PATIENCE = 30.0


def _users(ground: Ground, count: int) -> tuple[Users, list[str]]:
    """Somebody who acts for them, one request after the other; each is answered."""
    number = ground.prefix.strip(":")
    names = [f"s{number}-{each}" for each in range(count)]
    users = Users(FeederClient(ground.stack.base_url), ground.fed, names)
    ground.cleanup.callback(users.client.close)
    return users, names


def _settle(ground: Ground) -> None:
    if not ground.settled(PATIENCE) or not slices_settle(PATIENCE):
        raise GroundError("the fan-out does not come to its end")


@contextmanager
def _held(ground: Ground, where: str) -> Iterator[None]:
    """Whoever comes to this place is held until the end of the block."""
    ground.switches.off(f"held-{where}")
    ground.switches.on(f"stop-{where}")
    try:
        yield
    finally:
        ground.switches.off(f"stop-{where}")


def _wait_held(ground: Ground, where: str) -> None:
    ground.wait(lambda: ground.switches.is_on(f"held-{where}"), 20, where)


def read_what_has_gone(ground: Ground) -> None:
    """A cached feed is read right after a deletion and an unfollow, while no handler runs."""
    users, (ann, bob, carl) = _users(ground, 3)
    users.follow(ann, bob)
    users.follow(ann, carl)
    posts = [users.post(author) for author in (bob, carl, bob)]
    _settle(ground)
    with ground.fault("no handler runs", repeats=False), ground.stopped("worker-effects"):
        users.read(ann)
        users.read(ann)
        users.delete(bob, posts[0])
        users.read(ann)
        users.unfollow(ann, carl)
        users.read(ann)
        users.follow(ann, carl)
        users.read(ann)


def die_before_the_entries(ground: Ground) -> None:
    """A worker dies that has claimed a slice and not written it."""
    users, (ann, bob) = _users(ground, 2)
    users.follow(ann, bob)
    _settle(ground)
    with ground.fault("a worker dies before its entries", repeats=False):
        with _held(ground, "before-post"):
            users.post(bob)
            _wait_held(ground, "before-post")
            ground.unit("worker-effects").wanted = False
            ground.unit("worker-effects").kill()
        ground.unit("worker-effects").start()
        ground.unit("worker-effects").wait_ready()
    _settle(ground)


def caches_do_not_confirm(ground: Ground) -> None:
    """Redis refuses just when the caches are to hear of a slice."""
    users, (ann, bob) = _users(ground, 2)
    users.follow(ann, bob)
    _settle(ground)
    users.read(ann)
    users.read(ann)
    busy = ground.fault("Redis refuses writes to caches", repeats=False)
    with busy, _held(ground, "after-post"):
        users.post(bob)
        _wait_held(ground, "after-post")
        with refusing("busy", ground.stack.env["REDIS_URL"]):
            ground.switches.off("stop-after-post")
            time.sleep(1.5)
    _settle(ground)


def follow_again(ground: Ground) -> None:
    """The clean-up of a follow comes behind the backfill of the next one."""
    users, (ann, bob) = _users(ground, 2)
    users.follow(ann, bob)
    for _ in range(3):
        users.post(bob)
    _settle(ground)
    with ground.fault("a clean-up is late", repeats=False), _held(ground, "before-cleanup"):
        users.unfollow(ann, bob)
        _wait_held(ground, "before-cleanup")
        users.follow(ann, bob)
        sql = "SELECT 1 FROM follows WHERE follower_id = %s AND active AND backfilled"
        ground.wait(lambda: bool(ground.evidence.rows(sql, (ann,))), 20, "the backfill")
    _settle(ground)


def outgrow_the_window(ground: Ground) -> None:
    """Two authors have posted more than a window holds before they are followed."""
    users, (ann, bob, carl) = _users(ground, 3)
    for _ in range(28):
        users.post(bob)
        users.post(carl)
    users.follow(ann, bob)
    users.follow(ann, carl)
    _settle(ground)


def fill_slowly(ground: Ground) -> None:
    """A web process has read a feed and not cached it yet when a slice commits and touches that cache."""
    users, (ann, bob) = _users(ground, 2)
    users.follow(ann, bob)
    _settle(ground)
    with ground.fault("a fill is slow", repeats=False), _held(ground, "fill"):
        reader = Thread(target=users.read, args=(ann,))
        reader.start()
        _wait_held(ground, "fill")
        # By another writer: the only web process stands still.
        post_id = (int(time.time() * 1000) - EPOCH_MS) << TIME_SHIFT
        create_posts([NewPost(post_id=post_id, author_id=bob, content="words")])
        _settle(ground)
    reader.join()


def come_back_older(ground: Ground) -> None:
    """Redis comes back with a cached feed of a moment ago."""
    users, (ann, bob) = _users(ground, 2)
    users.follow(ann, bob)
    _settle(ground)
    users.read(ann)
    users.read(ann)
    with ground.fault("Redis restarted from an older copy of its files"):
        copy = keep_files(ground)
        users.post(bob)
        _settle(ground)  # the cached feed has it now; the copy has not
        bring_back(ground, copy)
    _settle(ground)

    def is_cached() -> bool:
        users.read(ann)
        return ground.fed.pages[-1].hit

    ground.wait(is_cached, 20, "the cache is asked again")


def cross_the_threshold(ground: Ground) -> None:
    """An author grows above the threshold, posts, and loses a follower."""
    users, names = _users(ground, 10)
    star, *fans = names
    for fan in fans:
        users.follow(fan, star)
    _settle(ground)
    for _ in range(3):
        users.post(star)
    _settle(ground)
    with ground.fault("the threshold is crossed", repeats=False):
        for fan in fans[:2]:
            users.unfollow(fan, star)
            _settle(ground)


def _scenario(name: str, title: str, play: Play) -> Scenario:
    return Scenario(name=name, title=title, play=play, rate=0.0, feeders=0.0, settle_within=30.0)


SCENARIOS = (
    _scenario(
        "feeds-gone", "cached feeds read right after a deletion and an unfollow", read_what_has_gone
    ),
    _scenario(
        "feeds-before-entries",
        "a worker dies before it has written its slice",
        die_before_the_entries,
    ),
    _scenario(
        "feeds-unconfirmed", "Redis refuses what a slice writes to caches", caches_do_not_confirm
    ),
    _scenario(
        "feeds-again", "a clean-up comes behind the backfill of the next follow", follow_again
    ),
    _scenario("feeds-window", "more posts than a window holds are backfilled", outgrow_the_window),
    _scenario("feeds-slow-fill", "a slice commits while a feed is read for the cache", fill_slowly),
    _scenario("feeds-older", "Redis comes back with an older cached feed", come_back_older),
    _scenario("feeds-threshold", "one unfollow at the threshold", cross_the_threshold),
)
