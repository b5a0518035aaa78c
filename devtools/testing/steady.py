"""A small steady load of orders over HTTP that remembers every promise made to it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Reply", "SteadyOrders", "place_orders", "steady_orders"]

INTERVAL = 0.05  # seconds from one order to the next
BODIES: tuple[dict[str, Any], dict[str, Any]] = (
    {"user_id": "u1", "amount": 42.5},
    {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10}]},
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one order was answered; `status` 0: nothing that is HTTP."""

    status: int
    retry_after: str
    body: dict[str, Any]

    @property
    def order_id(self) -> str:
        """Of an accepted order, otherwise empty."""
        return str(self.body.get("order_id") or self.body.get("orderId") or "")


@dataclass(slots=True)
class SteadyOrders:
    """The replies so far, both bodies in turn."""

    port: int
    replies: list[Reply] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def accepted(self, since: int = 0) -> list[str]:
        """Ids of the orders promised, from the reply number `since` on."""
        return [reply.order_id for reply in self.replies[since:] if reply.status in (200, 201)]

    def refused(self, since: int = 0) -> list[Reply]:
        """The other replies."""
        return [reply for reply in self.replies[since:] if reply.status not in (200, 201)]

    def run(self) -> None:
        number = 0
        while not self.stop.wait(INTERVAL):
            self.replies.append(_post(self.port, BODIES[number % 2]))
            number += 1


def _post(port: int, body: dict[str, Any]) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/orders", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return Reply(answer.status, answer.getheader("Retry-After", ""), json.loads(text))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(0, "", {"error": repr(error)})
    finally:
        connection.close()


def place_orders(port: int, count: int) -> list[str]:
    """Orders one after the other, both bodies in turn; their ids, empty where one was refused."""
    return [_post(port, BODIES[number % 2]).order_id for number in range(count)]


@contextmanager
def steady_orders(port: int) -> Iterator[SteadyOrders]:
    """Twenty orders a second until the end of the block; it is entered after the first second."""
    orders = SteadyOrders(port)
    thread = threading.Thread(target=orders.run, name="steady-orders", daemon=True)
    thread.start()
    try:
        time.sleep(1)
        yield orders
    finally:
        orders.stop.set()
        thread.join()
