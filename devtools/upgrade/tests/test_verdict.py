"""Each way in which an upgrade can fail fails its line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devtools.testing.account import Account
from devtools.upgrade.evidence import FoundState, Left
from devtools.upgrade.load import Promises
from devtools.upgrade.run import SeenUpgrade
from devtools.upgrade.verdict import conclusion, lines_of

ACCOUNT = Account(
    seconds=1.0,
    orders=2,
    events=9,
    published=9,
    heard=7,
    applied=7,
    processed_events=1,
    simple_orders=1,
    kafka_duplicates=3,
    probe={"drawn": 5, "applied": 5, "lost": 0, "duplicates": 0, "violations": 0},
    figures_different=0,
    under_way=0,
)
FOUND = FoundState(
    missing=0,
    unasked=0,
    created_wrong=0,
    paid_wrong=0,
    delivered_lost=0,
    courier_wrong=0,
    lost_words=0,
    undelivered=0,
    open_letters=0,
)


def promises(**changes: Any) -> Promises:
    return replace(
        Promises(
            orders={"a": True, "b": False},
            paid={"a"},
            delivered={"d"},
            posts={"1"},
            follows={("r", "a")},
            notifications={"n"},
            repeated=1,
        ),
        **changes,
    )


SEEN = SeenUpgrade(
    promises=promises(),
    left=Left(3, 3, 0, 2),
    back_again=(Left(9, 9, 5, 0), Left(9, 9, 5, 3)),
    back={"outbox": "0005_lane_rewinds"},
    account=ACCOUNT,
    found=FOUND,
    audit="",
    feeds="",
    complaints={"old-worker: boom": 2},
)


def probe(**changes: int) -> Account:
    return replace(ACCOUNT, probe=ACCOUNT.probe | changes)


def test_nothing_is_broken_where_everything_is_there_once() -> None:
    lines = lines_of(SEEN)
    assert [line.name for line in lines if line.ok is False] == []
    assert conclusion(lines).startswith("Nothing was lost")


@pytest.mark.parametrize(
    ("seen", "failed"),
    [
        (replace(SEEN, promises=promises(orders={})), "orders accepted"),
        (replace(SEEN, promises=promises(refused=["POST /orders: 500"])), "orders accepted"),
        (replace(SEEN, promises=promises(differing=["200, then 201"])), "asked twice"),
        (replace(SEEN, promises=promises(repeated=0)), "asked twice"),
        (replace(SEEN, found=replace(FOUND, missing=1)), "orders stored"),
        (replace(SEEN, found=replace(FOUND, unasked=1)), "orders stored"),
        (replace(SEEN, found=replace(FOUND, created_wrong=1)), "events of them"),
        (replace(SEEN, found=replace(FOUND, paid_wrong=1)), "events of them"),
        (replace(SEEN, account=replace(ACCOUNT, published=8)), "events published"),
        (replace(SEEN, account=replace(ACCOUNT, applied=6)), "effects"),
        (replace(SEEN, account=replace(ACCOUNT, processed_events=2)), "processed events"),
        (replace(SEEN, account=replace(ACCOUNT, figures_different=1)), "figures"),
        (replace(SEEN, account=replace(ACCOUNT, under_way=1)), "figures"),
        (replace(SEEN, account=probe(violations=1)), "order"),
        (replace(SEEN, account=probe(lost=1)), "order"),
        (replace(SEEN, account=probe(duplicates=1)), "order"),
        (replace(SEEN, account=probe(drawn=0, applied=0)), "order"),
        (replace(SEEN, audit="1 events are missing."), "audit"),
        (replace(SEEN, found=replace(FOUND, open_letters=1)), "dead letters"),
        (replace(SEEN, left=Left(0, 0, 0, 0)), "left for new code"),
        (replace(SEEN, left=Left(3, 0, 0, 0)), "left for new code"),
        (replace(SEEN, left=Left(3, 3, 1, 0)), "left for new code"),
        (
            replace(SEEN, back_again=(Left(9, 9, 5, 0), Left(9, 9, 6, 3))),
            "and on the way back",
        ),
        (
            replace(SEEN, back_again=(Left(9, 9, 9, 0), Left(9, 9, 9, 0))),
            "and on the way back",
        ),
        (replace(SEEN, promises=promises(delivered=set())), "deliveries"),
        (replace(SEEN, found=replace(FOUND, delivered_lost=1)), "deliveries"),
        (replace(SEEN, found=replace(FOUND, courier_wrong=1)), "deliveries"),
        (replace(SEEN, promises=promises(posts=set())), "posts, follows, notifications"),
        (replace(SEEN, found=replace(FOUND, lost_words=1)), "posts, follows, notifications"),
        (replace(SEEN, found=replace(FOUND, undelivered=1)), "posts, follows, notifications"),
        (replace(SEEN, feeds="1 differences."), "feeds"),
    ],
)
def test_what_is_broken_fails_its_line_alone(seen: SeenUpgrade, failed: str) -> None:
    lines = lines_of(seen)
    assert [line.name for line in lines if line.ok is False] == [failed]
    assert failed in conclusion(lines)
