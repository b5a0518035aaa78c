"""Pages of GET /orders while others write: no order twice, none of the first ones missed."""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from devtools.testing.patience import PATIENCE
from devtools.testing.web import Web
from orders.models import Order

ORDER = {"customerId": "c1", "items": [{"productId": "p1", "quantity": 1, "price": 1}]}
WRITERS = 4


def place(web: Web) -> str:
    return str(web.post("/orders", ORDER).json["orderId"])


def read_all(web: Web, query: str) -> list[str]:
    """The ids of every page, in the order they come, by the Link header alone."""
    ids: list[str] = []
    path = f"/orders?{query}"
    while path:
        answer = web.get(path)
        assert answer.status == 200, answer.body
        ids += [entry["orderId"] for entry in answer.json]
        link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.header("link"))
        path = link[1] if link else ""
    return ids


@pytest.mark.parametrize("query", ["limit=3", "limit=7&customerId=c1", "limit=50"])
def test_no_page_repeats_or_skips_while_others_write(web: Web, query: str) -> None:
    with ThreadPoolExecutor(8) as pool:  # many in one millisecond
        list(pool.map(lambda _: place(web), range(40)))
    stop, written = threading.Event(), list[str]()

    def write(_: int) -> None:
        while not stop.is_set():
            order_id = place(web)
            web.post(f"/orders/{order_id}/pay")
            written.append(order_id)

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write, number) for number in range(WRITERS)]
        try:
            while len(written) <= 3 * WRITERS and not any(map(Future.done, writers)):
                newest_first = Order.objects.order_by("-created_at", "-id")
                there = [str(order_id) for order_id in newest_first.values_list("id", flat=True)]
                found = read_all(web, query)
                assert len(found) == len(set(found))
                known = set(there)
                assert [order_id for order_id in found if order_id in known] == there
        finally:
            stop.set()
        for writer in writers:
            writer.result(timeout=PATIENCE)


def test_a_narrowed_list_skips_nobody_who_stays_in_it(web: Web) -> None:
    """Orders that leave the filter between two pages take no others with them."""
    ids = [place(web) for _ in range(12)][::-1]
    first = web.get("/orders?status=CREATED&limit=4")
    for order_id in (ids[3], ids[4], ids[7]):  # the cursor itself, and some behind it
        web.post(f"/orders/{order_id}/pay")
    link = re.fullmatch(r'</orders\?([^>]+)>; rel="next"', first.header("link"))
    assert link is not None
    found = [entry["orderId"] for entry in first.json] + read_all(web, link[1])
    assert found == [order_id for order_id in ids if order_id not in (ids[4], ids[7])]
