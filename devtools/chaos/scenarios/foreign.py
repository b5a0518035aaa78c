"""Another producer writes to our topic: its bad events are dead letters, its good ones count apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from devtools.chaos.ground import Ground
from devtools.chaos.scenarios import broker
from devtools.chaos.scenarios.base import Scenario
from orders.events import ORDER_EVENTS_TOPIC, OrderCreated, OrderEvent, OrderItem, PaymentCompleted
from outbox.envelope import rfc3339
from outbox.topics import lane_of, partition_of

__all__ = ["SCENARIOS"]

HANDLER = "record_sales"
PRICE = Decimal("10.25")
ORDERS, QUICK_ORDERS = 40, 10
WITHIN = 60.0


def foreign_events(ground: Ground) -> None:
    """Orders of another shop in our topic, paid and some of them sent twice, between events that
    exceed every bound of the contract."""
    before = _their_figures(ground)
    orders = QUICK_ORDERS if ground.quick else ORDERS
    bad: set[str] = set()
    good: set[str] = set()
    with ground.fault("another producer writes to order-events", repeats=False):
        payloads = _out_of_bounds(_created(ground, "bad"))
        for number in range(orders):
            created = _created(ground, str(number))
            _send(created)
            if number % 5 == 0:
                _send(created)  # its drain died, too
            _send(_paid(created))
            good |= {created.event_id, _paid(created).event_id}
            if payload := next(payloads, ""):
                bad.add(_send(created, payload=payload, event_id=str(uuid4())))
        for payload in payloads:
            bad.add(_send(_created(ground, "bad"), payload=payload, event_id=str(uuid4())))
        ground.foreign |= bad | good
        ground.wait(lambda: _receipts(ground, good, parked=False) == len(good), WITHIN, "effects")
        ground.wait(lambda: _receipts(ground, bad, parked=True) == len(bad), WITHIN, "letters")
    _demand_figures(ground, before, orders)
    output = ground.manage("check_sales_metrics")  # fails if ours differ
    ground.demand("other producers" in output, f"check_sales_metrics names no others: {output}")
    ground.manage("dead_letters", "discard", *_letters(ground, bad))
    ground.figures["theirs"] = f"{len(good)} counted, {len(bad)} dead letters"


def _demand_figures(ground: Ground, before: Mapping[str, Decimal], orders: int) -> None:
    """Each of their orders is counted once, as paid, and none of the bad ones."""
    after = _their_figures(ground)
    added = {name: after[name] - before.get(name, 0) for name in after}
    wanted = {
        "orders_total:all": orders,
        "orders_total:PAID": orders,
        "revenue_total:all": orders * 2 * PRICE,
        "top_products:foreign": orders * 2,
    }
    found = {name: added.get(name, 0) for name in wanted}
    ground.demand(found == wanted, f"theirs are {found}, and should be {wanted}")
    [(left,)] = ground.evidence.rows("SELECT count(*) FROM sales_set_aside")
    ground.demand(left == 0, f"{left} additions were set aside")


def _created(ground: Ground, name: str) -> OrderCreated:
    now = rfc3339(datetime.now(UTC))
    return OrderCreated(
        event_id=str(uuid4()),
        order_id=f"{ground.prefix}foreign-{name}",
        customer_id="theirs",
        total_price=2 * PRICE,
        timestamp=now,
        created_at=now,
        items=(OrderItem(product_id="foreign", quantity=2, price=PRICE),),
    )


def _paid(created: OrderCreated) -> PaymentCompleted:
    return PaymentCompleted(
        event_id=f"{created.event_id[:-1]}{int(created.event_id[-1], 16) ^ 1:x}",
        order_id=created.order_id,
        customer_id=created.customer_id,
        total_price=created.total_price,
        timestamp=created.timestamp,
        created_at=created.created_at,
    )


def _out_of_bounds(event: OrderCreated) -> Iterator[str]:
    """Values of the shape of an event, one bound exceeded in each."""
    good = event.to_json()
    for before, after in (
        ('"productId":"foreign"', f'"productId":"{"p" * 4000}"'),
        ('"customerId":"theirs"', f'"customerId":"{"c" * 256}"'),
        (f'"totalPrice":{2 * PRICE}', '"totalPrice":9999999999999999999999999999'),
        (f'"totalPrice":{2 * PRICE}', '"totalPrice":0.005'),
        (f'"price":{PRICE}', '"price":10.255'),
        ('"quantity":2', '"quantity":20000'),
        (f'"createdAt":"{event.created_at}"', '"createdAt":"2026-13-45T99:99:99.999Z"'),
        (f'"createdAt":"{event.created_at}"', '"createdAt":"2026-02-30T12:00:00.000Z"'),
        (f'"createdAt":"{event.created_at}"', '"createdAt":"٢٠٢٦-03-11T12:00:00.000Z"'),
    ):
        if before not in good:
            raise ValueError(f"{before} is not in {good}")
        yield good.replace(before, after)


def _send(event: OrderEvent, *, payload: str = "", event_id: str = "") -> str:
    """Write an event past the outbox; its id."""
    event_id = event_id or event.event_id
    partition = partition_of(lane_of(event.key), ORDER_EVENTS_TOPIC.partitions)
    headers = {"ce_id": event_id.encode(), "ce_type": event.type.encode()}
    value = (payload or event.to_json()).encode()
    broker.produce_raw(ORDER_EVENTS_TOPIC.name, partition, event.key.encode(), value, headers)
    return event_id


def _their_figures(ground: Ground) -> dict[str, Decimal]:
    sql = "SELECT metric_name || ':' || dimension, value FROM sales_figures_foreign"
    return dict(ground.evidence.rows(sql))


def _receipts(ground: Ground, ids: set[str], *, parked: bool) -> int:
    sql = """
        SELECT count(*) FROM inbox_receipt
        WHERE handler = %s AND (outcome = 1) = %s AND event_id = ANY(%s::uuid[])
    """
    return int(ground.evidence.rows(sql, (HANDLER, parked, list(ids)))[0][0])


def _letters(ground: Ground, ids: set[str]) -> list[str]:
    sql = "SELECT id FROM dead_letter WHERE state < 3 AND event_id = ANY(%s::uuid[]) ORDER BY id"
    return [str(row[0]) for row in ground.evidence.rows(sql, (list(ids),))]


SCENARIOS = (
    Scenario(
        name="foreign-events",
        title="another producer writes good and bad events to our topic",
        play=foreign_events,
        quick=True,
    ),
)
