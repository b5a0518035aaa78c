"""Idempotency keys over real HTTP when many come at once, or nobody knows what became of the first: one order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from devtools.testing.patience import PATIENCE
from devtools.testing.processes import child_environment
from devtools.testing.weather import Fault, Proxy, proxy_to
from devtools.testing.web import Answer, Web, web_process
from eventsite.tests.keyed_requests import (
    ORDER,
    OTHER,
    SIMPLE,
    WAYS,
    assert_done,
    assert_replay,
    assert_running,
    commits_held,
    insisting,
    is_replay,
    new_key,
    post,
    wait_until_held,
)
from eventsite.tests.test_http_idempotency_replays import refused
from orders.models import Order
from restapi.models import IdempotencyRow
from restapi.tests.tables import row_counts

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def webs(django_db_setup: None) -> Iterator[dict[str, Web]]:
    """By HOT_PATHS."""
    with web_process(HOT_PATHS="on") as hot, web_process(HOT_PATHS="off") as django:
        yield {"on": hot, "off": django}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def web(webs: dict[str, Web], way: str, transactional_db: None) -> Web:
    return webs[way]


# All at once


def test_a_hundred_at_once_make_one_order(web: Web) -> None:
    key = new_key()
    answers = at_once([web] * 100, key)
    assert_one_order(answers)
    assert_replay(post(web, key), next(answer for answer in answers if answer.status == 201))


def test_a_hundred_by_both_ways_make_one_order(webs: dict[str, Web]) -> None:
    assert_one_order(at_once([webs["on"], webs["off"]] * 50, new_key()))


def at_once(webs: list[Web], key: str) -> list[Answer]:
    start = threading.Barrier(len(webs))

    def run(web: Web) -> Answer:
        start.wait(PATIENCE)
        return post(web, key)

    with ThreadPoolExecutor(len(webs)) as pool:
        return list(pool.map(run, webs))


def assert_one_order(answers: list[Answer]) -> None:
    done = [answer for answer in answers if answer.status == 201 and not is_replay(answer)]
    assert len(done) == 1
    for answer in answers:
        if answer.status == 201:
            assert answer.body == done[0].body
        else:
            assert_running(answer)
    counts = row_counts()
    assert (counts["orders"], counts["event_outbox"], counts["idempotency_keys"]) == (1, 2, 1)


def test_many_keys_at_once_are_each_done_once(web: Web) -> None:
    keys = [new_key() for _ in range(20)]
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda key: (key, insisting(web, key)), keys * 3))
    bodies = {(key, answer.body) for key, answer in answers}
    assert len(bodies) == Order.objects.count() == IdempotencyRow.objects.count() == 20
    assert sum(not is_replay(answer) for _, answer in answers) == 20
    assert {answer.status for _, answer in answers} == {201}


def test_a_batch_that_is_halved_meets_no_lock_of_its_own(webs: dict[str, Web]) -> None:
    """One order of a batch is refused at COMMIT; the others are tried again with their keys."""
    web = webs["on"]
    bodies = [OTHER] * 20
    bodies[7] = ORDER
    keys = [new_key() for _ in bodies]
    with ThreadPoolExecutor(30) as pool, refused("c1"):
        with commits_held() as holder:
            pool.submit(web.post, "/orders", SIMPLE)  # the rest gathers behind it
            wait_until_held(holder)
            answers = [pool.submit(post, web, *pair) for pair in zip(keys, bodies, strict=True)]
            threading.Event().wait(0.5)
        statuses = [answer.result(PATIENCE).status for answer in answers]
    assert statuses == [201] * 7 + [500] + [201] * 12
    assert IdempotencyRow.objects.count() == 19
    assert_done(post(web, keys[7], ORDER))
    for key in keys[:7] + keys[8:]:
        assert is_replay(post(web, key, OTHER))
    assert Order.objects.count() == 21


# What became of it


@pytest.fixture(scope="module")
def proxy(django_db_setup: None) -> Iterator[Proxy]:
    given = connection.settings_dict
    with proxy_to(given["HOST"], int(given["PORT"])) as started:
        yield started


@pytest.fixture(scope="module")
def webs_of_proxy(proxy: Proxy) -> Iterator[dict[str, Web]]:
    port = connection.settings_dict["PORT"]
    url = child_environment()["DATABASE_URL"].replace(f":{port}/", f":{proxy.port}/")
    with (
        web_process(DATABASE_URL=url, HOT_PATHS="on") as hot,
        web_process(DATABASE_URL=url, HOT_PATHS="off") as django,
    ):
        yield {"on": hot, "off": django}


@pytest.mark.parametrize(
    ("fault", "outcomes", "stored"),
    [
        # A hot path sends COMMIT along, and does not know how far the server came.
        (Fault.BEFORE_INSERT, {"on": "unknown", "off": "not_stored"}, 0),
        (Fault.BEFORE_COMMIT, {"on": "unknown", "off": "unknown"}, 0),
        (Fault.AFTER_COMMIT, {"on": "unknown", "off": "unknown"}, 1),
    ],
)
def test_the_same_key_again_is_safe_whatever_became_of_the_first(
    webs_of_proxy: dict[str, Web],
    proxy: Proxy,
    way: str,
    fault: Fault,
    outcomes: dict[str, str],
    stored: int,
) -> None:
    web, key = webs_of_proxy[way], new_key()
    proxy.set(Fault.AWAY)  # connections of this test: on older ones statements have no text
    proxy.set(fault)
    lost = post(web, key)
    assert (lost.status, lost.json["outcome"]) == (503, outcomes[way])
    assert proxy.happened.is_set()
    assert row_counts()["orders"] == row_counts()["idempotency_keys"] == stored
    again = insisting(web, key)
    assert again.status == 201
    assert is_replay(again) == bool(stored)
    assert again.json["orderId"] == str(Order.objects.get().id)
