"""Bodies of POST /orders, and an order at a step of its life."""

from __future__ import annotations

import re
from typing import Any

from devtools.testing.web import Web

__all__ = ["ITEM", "MOMENT", "NOBODY", "ORDER", "SIMPLE", "order", "placed", "with_item", "without"]

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ITEM = {"productId": "p1", "quantity": 2, "price": 10}
ORDER = {
    "customerId": "cust-123",
    "items": [ITEM, {"productId": "p2", "quantity": 1, "price": 50}],
}
SIMPLE = {"user_id": "u1", "amount": 42.5}
NOBODY = "01890000-0000-7000-8000-00000000dead"  # the same in every worker of a test run


def order(**changes: Any) -> dict[str, Any]:
    return ORDER | changes


def with_item(**changes: Any) -> dict[str, Any]:
    return ORDER | {"items": [ITEM, ITEM | changes]}


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


def placed(web: Web, *steps: str) -> str:
    """The id of a new order after some steps of its life."""
    order_id = str(web.post("/orders", ORDER).json["orderId"])
    for step in steps:
        assert web.post(f"/orders/{order_id}/{step}").status == 200
    return order_id
