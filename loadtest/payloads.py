"""Order bodies as a shop would send them: many customers, few products that sell most."""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from decimal import Decimal
from typing import NamedTuple

import msgspec

__all__ = ["KINDS", "Payload", "Payloads"]

KINDS = ("orders", "simple", "mixed")
PRODUCTS = 1000
SKEW = 1.1  # Zipf's exponent: of 1,000 products the first ten sell about half
MAX_LINES = 5
MAX_QUANTITY = 5
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Payload(NamedTuple):
    """A body of POST /orders, JSON, and how many lines the order has: none is a simple one."""

    body: bytes
    lines: int


class Payloads:
    """Bodies of POST /orders, one after the other; the same seed makes the same ones.

    kind       orders (with items), simple (user_id and amount), or mixed, half of each
    customers  how many there are, each as likely as the other

    Product n sells in proportion to 1 / n^1.1 (Zipf) and has one price, whoever buys it; money
    is Decimal, with two digits in the body.
    """

    def __init__(self, *, seed: int, kind: str = "orders", customers: int = 5000) -> None:
        self._simple_share = {"orders": 0.0, "simple": 1.0, "mixed": 0.5}[kind]
        self._chooser = random.Random(f"bodies {seed}")  # noqa: S311  (a repeatable choice)
        self._customers = customers
        weights = itertools.accumulate(1 / rank**SKEW for rank in range(1, PRODUCTS + 1))
        self._cumulated = list(weights)
        prices = random.Random(f"prices {seed}")  # noqa: S311
        self._prices = [Decimal(prices.randrange(99, 50_000)).scaleb(-2) for _ in range(PRODUCTS)]

    def next(self) -> Payload:
        if self._chooser.random() < self._simple_share:
            return Payload(_encode(self._simple()), 0)
        lines = [self._line() for _ in range(1 + int(self._chooser.random() * MAX_LINES))]
        return Payload(_encode({"customerId": self._customer(), "items": lines}), len(lines))

    def _simple(self) -> dict[str, object]:
        cents = self._chooser.randrange(1, 50_000)
        return {"user_id": self._customer(), "amount": Decimal(cents).scaleb(-2)}

    def _line(self) -> dict[str, object]:
        product = bisect(self._cumulated, self._chooser.random() * self._cumulated[-1])
        return {
            "productId": f"product-{product + 1:04}",
            "quantity": 1 + int(self._chooser.random() * MAX_QUANTITY),
            "price": self._prices[product],
        }

    def _customer(self) -> str:
        return f"customer-{int(self._chooser.random() * self._customers)}"
