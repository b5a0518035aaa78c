"""Customers during an upgrade: each request has an Idempotency-Key and is sent until it is answered.

Whatever happens to the process that has it, a customer asks again, mostly another process and often
one of the other release. So every request has an answer in the end, and every answer is a promise.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Crowd", "Doors", "Promises"]

CUSTOMERS = 4
PAUSE = 0.1  # seconds of a customer between two things
TIMEOUT = 15.0  # of one request
ASK_AGAIN = 0.1
GIVE_UP = 300.0  # a whole way there and back
REPEATED_SHARE = 0.3  # asked once more after the answer
PAID_SHARE = 0.4
DELIVERED_SHARE = 0.3
SIMPLE_SHARE = 0.5


@dataclass(slots=True)
class Doors:
    """Where a load balancer would send requests now: base URLs, replaced as a whole.

    every   web processes that serve
    todays  those of today's code, which alone knows deliveries
    only_orders  nobody follows, posts or notifies, because no worker there would apply it
    """

    every: tuple[str, ...] = ()
    todays: tuple[str, ...] = ()
    only_orders: bool = False


@dataclass(slots=True)
class Promises:
    """What was answered, each by the ids in its answer.

    orders     order -> whether its body was the simple one
    paid       orders whose payment was answered 200
    delivered  ids of the events of deliveries
    asked_again  requests whose answer got lost, or that were refused for the moment
    repeated   answered requests that were sent once more
    differing  of these whose second answer was another one
    refused    answers that nobody should get
    """

    orders: dict[str, bool] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    follows: set[tuple[str, str]] = field(default_factory=set)
    notifications: set[str] = field(default_factory=set)
    asked_again: int = 0
    repeated: int = 0
    differing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Crowd:
    """Customers in threads of their own, from entry to exit. At the exit each finishes what it has
    begun; `promises` is whole then."""

    def __init__(self, doors: Doors) -> None:
        self.promises = Promises()
        self._doors = doors
        self._stop = threading.Event()
        self._given_up = threading.Event()
        self._guard = threading.Lock()
        self._threads = [
            threading.Thread(target=self._live, args=(number,), daemon=True, name=f"buyer-{number}")
            for number in range(CUSTOMERS)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # nobody may be there to answer
            self._given_up.set()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        customer = _Customer(self._doors, self.promises, self._given_up, self._guard, number)
        for turn in itertools.count():
            if self._stop.wait(PAUSE):
                return
            customer.order()
            if turn % 3 == 0 and not self._doors.only_orders:
                customer.follow_and_post(turn)
                customer.notify()


class _Customer:
    def __init__(
        self,
        doors: Doors,
        promises: Promises,
        given_up: threading.Event,
        guard: threading.Lock,
        number: int,
    ) -> None:
        self._doors = doors
        self._promises = promises
        self._given_up = given_up
        self._guard = guard  # of the promises' numbers, which threads count up
        self._number = number
        self._chooser = random.Random(number)  # noqa: S311  (a repeatable choice, not a secret)

    def order(self) -> None:
        """Place one; some are delivered, some are paid, and some both, in this order."""
        simple = self._chooser.random() < SIMPLE_SHARE
        body = self._simple_body() if simple else self._detailed_body()
        told = self._told("POST", "/orders", body)
        if told is None:
            return
        order_id = str(told.get("order_id") or told.get("orderId"))
        self._promises.orders[order_id] = simple
        if self._doors.todays and self._chooser.random() < DELIVERED_SHARE:
            delivered = self._told("POST", "/deliveries", {"order_id": order_id}, todays=True)
            if delivered is not None:
                self._promises.delivered.add(str(delivered["event_id"]))
        if self._chooser.random() < PAID_SHARE:
            paid = self._told("POST", f"/orders/{order_id}/pay", None)
            if paid is not None:
                self._promises.paid.add(order_id)

    def follow_and_post(self, turn: int) -> None:
        """Events of another app."""
        author, reader = f"author-{self._number}", f"reader-{self._number}-{turn}"
        follow = {"follower_id": reader, "followee_id": author}
        if self._told("POST", "/follow", follow) is not None:
            self._promises.follows.add((reader, author))
        post = {"author_id": author, "content": "We are upgrading."}
        if (told := self._told("POST", "/posts", post)) is not None:
            self._promises.posts.add(str(told["post_id_str"]))

    def notify(self) -> None:
        """The same for notifications."""
        body = {
            "channel": "sms",
            "recipient": f"+1555{self._chooser.randrange(10**7):07}",
            "content": "We are upgrading.",
            "priority": "high",
        }
        told = self._told("POST", "/api/v1/notifications", body)
        if told is not None:
            self._promises.notifications.add(str(told["id"]))

    def _simple_body(self) -> dict[str, Any]:
        return {"user_id": f"user-{self._chooser.randrange(50)}", "amount": self._price()}

    def _detailed_body(self) -> dict[str, Any]:
        lines = [
            {"productId": f"product-{number}", "quantity": number + 1, "price": self._price()}
            for number in range(self._chooser.randrange(1, 4))
        ]
        return {"customerId": f"customer-{self._chooser.randrange(50)}", "items": lines}

    def _price(self) -> float:
        return self._chooser.randrange(1, 20_000) / 100

    def _told(
        self, method: str, path: str, body: dict[str, Any] | None, *, todays: bool = False
    ) -> dict[str, Any] | None:
        """The answer's body, asked for until there is one; None if it was a refusal."""
        key = uuid.uuid4().hex
        content = b"" if body is None else json.dumps(body).encode()

        def doors() -> Sequence[str]:
            return self._doors.todays if todays else self._doors.every

        status, answer = self._until_answered(doors, method, path, content, key)
        if status >= 300:
            self._promises.refused.append(f"{method} {path}: {status} {answer[:200]!r}")
            return None
        if self._chooser.random() < REPEATED_SHARE:
            again = self._until_answered(doors, method, path, content, key)
            with self._guard:
                self._promises.repeated += 1
            if again != (status, answer):
                self._promises.differing.append(f"{method} {path}: {answer!r}, then {again!r}")
        told: dict[str, Any] = json.loads(answer)
        return told

    def _until_answered(
        self, doors: Callable[[], Sequence[str]], method: str, path: str, content: bytes, key: str
    ) -> tuple[int, bytes]:
        give_up = time.monotonic() + GIVE_UP
        while True:
            answered = self._ask(doors(), method, path, content, key)
            if answered is not None:
                return answered
            if time.monotonic() > give_up or self._given_up.is_set():
                return 599, b"nobody answered"
            with self._guard:
                self._promises.asked_again += 1
            time.sleep(ASK_AGAIN)

    def _ask(
        self, doors: Sequence[str], method: str, path: str, content: bytes, key: str
    ) -> tuple[int, bytes] | None:
        """Status and body; None: to be asked again."""
        if not doors:
            return None
        door = urlsplit(self._chooser.choice(doors))
        connection = http.client.HTTPConnection(door.netloc, timeout=TIMEOUT)
        headers = {"Idempotency-Key": key}
        if content:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        # It says so of everything that passes: 503, 429, and 409 for a key that is still at work.
        return None if answer.headers.get("Retry-After") else (status, body)
