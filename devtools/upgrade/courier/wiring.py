"""How either release of the courier is wired."""

from __future__ import annotations

from devtools.upgrade.courier.events import NEW, READ, OrderDelivered
from orders.events import ORDER_EVENTS_TOPIC
from outbox.declaration import Route, TaskQueue
from restapi.declaration import App, Path

__all__ = ["WIRING"]

WIRING = App(
    routes=(
        Route(
            handler="follow_orders",
            event=READ,
            topic=ORDER_EVENTS_TOPIC,
            ordered=True,
        ),
    ),
    publishes=(OrderDelivered,) * NEW,
    queues=(TaskQueue("courier"),),
    urls="devtools.upgrade.courier.urls",
    paths=(Path(pattern="deliveries", read="orders:read", write="orders:write"),),
    tag="courier",
)
