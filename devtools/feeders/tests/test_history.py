"""The judge of pages sees each kind of damage, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from devtools.feeders.history import FeedHistory, Kind, SeenPage, UserChange, impossible


def did(kind: Kind, user: str, at: float, *, done: bool = True, **what: object) -> UserChange:
    """A request that takes one second."""
    return UserChange(kind, user, at, at + 1, done, **what)  # type: ignore[arg-type]


def saw(at: float, *ids: int, whole: bool = True) -> SeenPage:
    return SeenPage("ann", at, at + 1, ids, whole)


POST = did(Kind.POST, "bob", 10, post_id=2)
FOLLOW = did(Kind.FOLLOW, "ann", 20, author="bob")
UNFOLLOW = did(Kind.UNFOLLOW, "ann", 30, author="bob")
DELETE = did(Kind.DELETE, "bob", 30, post_id=2)
UNKNOWN_FOLLOW = did(Kind.FOLLOW, "ann", 20, done=False, author="bob")
LATE_POST = did(Kind.POST, "bob", 25, post_id=4)


@pytest.mark.parametrize(
    ("changes", "page"),
    [
        ([POST, FOLLOW], saw(22, 2)),
        ([POST, FOLLOW], saw(20.5)),  # while it is asked for
        ([POST, FOLLOW], saw(20.5, 2)),
        ([POST, FOLLOW, UNFOLLOW], saw(32)),
        ([POST, FOLLOW, UNFOLLOW], saw(30.5, 2)),
        ([POST, FOLLOW, DELETE], saw(32)),
        ([POST, FOLLOW, DELETE], saw(30.5, 2)),
        ([POST, FOLLOW, LATE_POST], saw(40, 2)),  # the fan-out owes it
        ([POST, FOLLOW, LATE_POST], saw(40, 4, whole=False)),  # the other one is on the next page
        ([POST, UNKNOWN_FOLLOW], saw(40)),
        ([POST, UNKNOWN_FOLLOW], saw(40, 2)),
        ([did(Kind.POST, "bob", 10, done=False), FOLLOW], saw(40, 8)),  # it was stored after all
        ([did(Kind.POST, "ann", 10, post_id=6)], saw(9.5, 6)),
    ],
)
def test_what_can_have_been_true(changes: Sequence[UserChange], page: SeenPage) -> None:
    assert list(impossible(FeedHistory([*changes], [page]))) == []


@pytest.mark.parametrize(
    ("changes", "page", "words"),
    [
        ([POST, FOLLOW], saw(22), "lacks post 2 of bob"),
        ([POST, FOLLOW, LATE_POST], saw(40, 4), "lacks post 2 of bob"),
        ([POST, UNKNOWN_FOLLOW, did(Kind.FOLLOW, "ann", 25, author="bob")], saw(30), "lacks"),
        ([POST], saw(22, 2), "who is not followed"),
        ([POST, FOLLOW, UNFOLLOW], saw(32, 2), "who is not followed"),
        ([POST, FOLLOW, DELETE], saw(32, 2), "deleted before"),
        ([did(Kind.FOLLOW, "ann", 1, author="bob"), POST], saw(5, 2), "before it was written"),
        ([FOLLOW], saw(40, 8), "which nobody wrote"),
        ([FOLLOW, POST, LATE_POST], saw(40, 2, 4), "not in order"),
        ([FOLLOW, POST], saw(40, 2, 2), "has a post twice"),
    ],
)
def test_what_cannot(changes: Sequence[UserChange], page: SeenPage, words: str) -> None:
    found = list(impossible(FeedHistory([*changes], [page])))
    assert len(found) == 1
    assert words in found[0]
