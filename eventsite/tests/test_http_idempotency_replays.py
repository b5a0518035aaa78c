"""Idempotency keys over real HTTP: what is answered again, what is refused, which keys stay free, and for how long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from devtools.testing.patience import PATIENCE
from devtools.testing.web import JSON, Web, web_process
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
    session,
    wait_until_held,
)
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
