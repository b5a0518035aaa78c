"""How the orders are wired: their paths, their topics, and the one event that they listen to."""

from __future__ import annotations

from orders.events import (
    ORDER_EVENTS,
    ORDERS_CREATED_TOPIC,
    STOCK_TOPIC,
    SimpleOrderCreated,
    StockReleased,
    StockReserved,
)
from outbox.declaration import Route, TaskQueue
from restapi.declaration import App, Path

__all__ = ["WIRING"]


def _path(pattern: str, view: str) -> Path:
    return Path(
        pattern=pattern,
        view=f"orders.api.views.{view}",
        read="orders:read",
        write="orders:write",
    )


WIRING = App(
    routes=(
        Route(
            handler="record_processed_events",
            event=(SimpleOrderCreated,),
            topic=ORDERS_CREATED_TOPIC,
            ordered=True,
            reset="orders.services.reset_processed_events",
        ),
    ),
    publishes=(*ORDER_EVENTS, SimpleOrderCreated, StockReserved, StockReleased),
    for_others=(STOCK_TOPIC,),
    queues=(TaskQueue("orders"),),
    paths=(
        _path("orders", "OrdersView"),
        _path("orders/<str:order_id>", "OrderView"),
        _path("orders/<str:order_id>/pay", "PayView"),
        _path("orders/<str:order_id>/ship", "ShipView"),
        _path("orders/<str:order_id>/cancel", "CancelOrderView"),
    ),
    hot_paths=(
        "orders.api.commands.PLACE_ORDER",
        "orders.api.hot_reads.READ_ORDER",
        "orders.api.hot_reads.LIST_ORDERS",
    ),
    tag="orders",
)
