"""Idempotency keys over real HTTP, before Django and in it: done once, answered again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection

from devtools.testing.patience import PATIENCE
from devtools.testing.processes import child_environment
from devtools.testing.weather import Fault, Proxy, proxy_to
from devtools.testing.web import JSON, Answer, Web, web_process
from orders.models import Order
from restapi.models import IdempotencyRow
from restapi.tests.tables import row_counts

pytestmark = pytest.mark.django_db(transaction=True)

ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
OTHER = {"customerId": "c2", "items": [{"productId": "p1", "quantity": 2, "price": 10.10}]}
SIMPLE = {"user_id": "u1", "amount": 42.5}
HELD = 4_711  # an advisory lock of this test; a trigger waits for it inside COMMIT
WAYS = ("on", "off")


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


def new_key() -> str:
    return f"key-{uuid4()}"


def post(web: Web, key: str, body: Mapping[str, Any] = ORDER) -> Answer:
    return web.post("/orders", body, {"Idempotency-Key": key})


def is_replay(answer: Answer) -> bool:
    return answer.header("idempotent-replayed") == "true"


def assert_done(answer: Answer, status: int = 201) -> None:
    assert answer.status == status, answer.body
    assert answer.header("idempotent-replayed") == ""


def assert_replay(answer: Answer, first: Answer) -> None:
    assert is_replay(answer)
    assert (answer.status, answer.body) == (first.status, first.body)
    for name in ("content-type", "content-length", "x-frame-options", "x-content-type-options"):
        assert answer.header(name) == first.header(name)


def assert_running(answer: Answer) -> None:
    assert answer.status == 409, answer.body
    assert answer.json.keys() == {"error", "details"}
    assert int(answer.header("retry-after")) > 0
    assert answer.header("idempotent-replayed") == ""


def insisting(web: Web, key: str, body: Mapping[str, Any] = ORDER) -> Answer:
    """As a client does: while it is told 409 it tries again."""
    for _ in range(500):
        answer = post(web, key, body)
        if answer.status != 409:
            return answer
        threading.Event().wait(0.02)
    raise AssertionError("Always 409.")


@contextmanager
def session() -> Iterator[psycopg.Connection]:
    """A second connection to the test database."""
    given = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(
        **{name: given[name] for name in names if name in given}, autocommit=True
    ) as other:
        yield other


@contextmanager
def commits_held() -> Iterator[psycopg.Connection]:
    """Until the end of the block no order's COMMIT gets further than this."""
    with session() as holder:
        holder.execute(f"""
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock_shared({HELD}); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON orders
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()
            """)
        try:
            holder.execute("SELECT pg_advisory_lock(%s)", [HELD])
            try:
                yield holder
            finally:
                holder.execute("SELECT pg_advisory_unlock(%s)", [HELD])
        finally:
            holder.execute("DROP FUNCTION hold CASCADE")


def wait_until_held(holder: psycopg.Connection, count: int = 1) -> None:
    """Until so many transactions stand still; a statement waits at most 5 s for a lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    for _ in range(400):
        [found] = holder.execute(waiting).fetchone() or [0]
        if found >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError("Nobody waits.")


# Answered again


@pytest.mark.parametrize(("body", "status"), [(ORDER, 201), (SIMPLE, 200)])
def test_the_same_request_is_answered_again(web: Web, body: dict[str, Any], status: int) -> None:
    key = new_key()
    first = post(web, key, body)
    assert_done(first, status)
    stored = row_counts()
    for _ in range(3):
        assert_replay(post(web, key, body), first)
    assert row_counts() == stored
    assert (stored["orders"], stored["idempotency_keys"]) == (1, 1)


@pytest.mark.parametrize("other", WAYS)
def test_one_process_answers_what_another_did(web: Web, webs: dict[str, Web], other: str) -> None:
    key = new_key()
    first = post(web, key)
    assert_replay(post(webs[other], key), first)
    assert Order.objects.count() == 1


def test_another_key_is_another_order(web: Web) -> None:
    answers = [post(web, new_key()) for _ in range(2)]
    for answer in answers:
        assert_done(answer)
    assert answers[0].json["orderId"] != answers[1].json["orderId"]
    assert Order.objects.count() == 2


def test_whitespace_behind_a_key_is_no_part_of_it(web: Web) -> None:
    """RFC 9110, 5.5; it was another key, and another order."""
    body = json.dumps(SIMPLE).encode()
    answers = []
    for written in (b"k", b"k ", b" k\t", b"\t k \t "):
        with web.socket() as raw:
            raw.sendall(
                b"POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nIdempotency-Key:%b\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (written, len(body), body)
            )
            answers.append(b"".join(iter(lambda: raw.recv(65536), b"")))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert len({answer.partition(b"\r\n\r\n")[2] for answer in answers}) == 1
    assert Order.objects.count() == 1


def test_without_a_key_nothing_is_kept(web: Web) -> None:
    for _ in range(2):
        assert_done(web.post("/orders", ORDER))
    assert (Order.objects.count(), IdempotencyRow.objects.count()) == (2, 0)


@pytest.mark.parametrize("key", ["x", "x" * 255, 'a b"~!', '"quoted"'])
def test_good_keys(web: Web, key: str) -> None:
    first = post(web, key)
    assert_done(first)
    assert_replay(post(web, key), first)


def test_a_key_belongs_to_one_endpoint(web: Web) -> None:
    key = new_key()
    ids = [web.post("/orders", ORDER).json["orderId"] for _ in range(2)]
    assert_done(post(web, key))
    for path in (f"/orders/{ids[0]}/pay", f"/orders/{ids[0]}/ship", f"/orders/{ids[1]}/pay"):
        first = web.post(path, headers={"Idempotency-Key": key})
        assert_done(first, 200)
        assert_replay(web.post(path, headers={"Idempotency-Key": key}), first)
        assert web.post(path).status == 409  # that was no second payment
    counts = row_counts()
    assert (counts["orders"], counts["order_changes"], counts["idempotency_keys"]) == (3, 6, 4)


# Refused


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(OTHER).encode(),
        json.dumps(SIMPLE).encode(),
        # The same JSON in other bytes is another body.
        json.dumps(ORDER, indent=1).encode(),
        # What would be refused by itself: the key was used, and that comes first.
        json.dumps(ORDER | {"items": []}).encode(),
        b"{",
        b"",
    ],
)
def test_another_body_is_422_and_stores_nothing(web: Web, body: bytes) -> None:
    key = new_key()
    first = post(web, key)
    stored = row_counts()
    answer = web.request("POST", "/orders", body, JSON | {"Idempotency-Key": key})
    assert answer.status == 422, answer.body
    assert answer.json.keys() == {"error", "details"}
    assert [detail["field"] for detail in answer.json["details"]] == ["Idempotency-Key"]
    assert not is_replay(answer)
    assert row_counts() == stored
    assert_replay(post(web, key), first)


def test_another_reason_to_cancel_is_422_also_where_it_is_none(web: Web) -> None:
    path = f"/orders/{web.post('/orders', ORDER).json['orderId']}/cancel"
    key = {"Idempotency-Key": new_key()}
    first = web.post(path, {"reason": "late"}, key)
    assert_done(first, 200)
    for reason in ("other", 7):
        assert web.post(path, {"reason": reason}, key).status == 422
    assert_replay(web.post(path, {"reason": "late"}, key), first)


@pytest.mark.parametrize("key", [b"", b"x" * 256, "k\u00e9".encode(), b"k\xe9", b"a\tb"])
def test_bad_keys_are_400_and_store_nothing(web: Web, key: bytes) -> None:
    before = row_counts()
    headers = JSON | {"Idempotency-Key": key.decode("latin-1")}
    answer = web.request("POST", "/orders", json.dumps(ORDER).encode(), headers)
    assert answer.status == 400, answer.body
    assert "Idempotency-Key" in answer.json["error"]
    assert [detail["field"] for detail in answer.json["details"]] == ["Idempotency-Key"]
    assert row_counts() == before


@pytest.mark.parametrize("second", WAYS)
def test_while_the_first_runs_409_at_once(web: Web, webs: dict[str, Web], second: str) -> None:
    key = new_key()
    with ThreadPoolExecutor(1) as pool:
        with commits_held() as holder:
            running = pool.submit(post, web, key)
            wait_until_held(holder)
            # whether it is the same, or would be taken at all, cannot be told yet
            for body in (ORDER, OTHER, {}):
                assert_running(post(webs[second], key, body))
            assert not running.done()
        assert_done(first := running.result(PATIENCE))
    assert_replay(post(webs[second], key), first)
    assert Order.objects.count() == 1


# Errors are not kept


def test_an_invalid_body_leaves_the_key_free(web: Web) -> None:
    key = new_key()
    assert post(web, key, ORDER | {"items": []}).status == 400
    assert IdempotencyRow.objects.count() == 0
    assert_done(post(web, key))


def test_an_order_that_the_database_refuses_leaves_the_key_free(web: Web) -> None:
    key = new_key()
    with refused("c1"):
        failed = post(web, key)
        assert (failed.status, failed.json) == (500, {"error": "Internal error.", "details": []})
        assert row_counts()["idempotency_keys"] == row_counts()["orders"] == 0
    assert_done(post(web, key))


@contextmanager
def refused(customer: str) -> Iterator[None]:
    """Orders of this customer fail at COMMIT."""
    with session() as other:
        other.execute(f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN
                IF NEW.customer_id = '{customer}' THEN
                    RAISE EXCEPTION 'no' USING ERRCODE = '23514';
                END IF;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON orders
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
            """)
        try:
            yield
        finally:
            other.execute("DROP FUNCTION refuse CASCADE")


def test_the_key_of_a_process_that_dies_is_free_or_done(webs: dict[str, Web], way: str) -> None:
    """While its session lives on in the server the key is held. A hot path's batch is there already
    with its COMMIT, and is done as soon as it can be; what Django has begun is rolled back."""
    key = new_key()
    survivor = webs["off" if way == "on" else "on"]
    with (
        web_process(HOT_PATHS=way) as doomed,
        ThreadPoolExecutor(1) as pool,
        session() as holder,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE event_outbox IN SHARE MODE")
        lost = pool.submit(post, doomed, key)
        wait_until_held(holder)
        doomed.process.kill()
        assert isinstance(lost.exception(10), OSError)
        assert_running(post(survivor, key))
    done = insisting(survivor, key)
    assert (done.status, is_replay(done)) == (201, way == "on")
    counts = row_counts()
    assert (counts["orders"], counts["event_outbox"], counts["idempotency_keys"]) == (1, 2, 1)


def test_a_transition_that_is_not_allowed_leaves_the_key_free(web: Web) -> None:
    key = {"Idempotency-Key": new_key()}
    order = f"/orders/{web.post('/orders', ORDER).json['orderId']}"
    refused_answer = web.post(f"{order}/ship", headers=key)
    assert (refused_answer.status, refused_answer.json["allowed"]) == (409, ["PAID", "CANCELLED"])
    assert web.post(f"{order}/pay").status == 200
    assert_done(web.post(f"{order}/ship", headers=key), 200)


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


# For how long


def age(hours: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => %s)",
            [hours * 3600],
        )


def test_a_key_is_kept_for_24_hours(web: Web) -> None:
    key = new_key()
    first = post(web, key)
    age(23.99)
    assert_replay(post(web, key), first)
    age(0.02)
    second = post(web, key, OTHER)
    assert_done(second)
    assert_replay(post(web, key, OTHER), second)
    assert (Order.objects.count(), IdempotencyRow.objects.count()) == (2, 1)


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
