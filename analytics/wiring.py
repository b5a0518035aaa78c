"""How the analytics are wired: what they listen to, what keeps the figures, their paths."""

from __future__ import annotations

from orders.events import ORDER_EVENTS, ORDER_EVENTS_TOPIC
from outbox.declaration import Every, Route, TaskQueue
from outbox.watching import Alarm
from restapi.declaration import App, Path

__all__ = ["WIRING"]


def _path(pattern: str, view: str) -> Path:
    return Path(pattern=pattern, view=f"analytics.api.views.{view}", read="analytics:read")


WIRING = App(
    routes=(
        Route(
            handler="record_sales",
            event=ORDER_EVENTS,
            topic=ORDER_EVENTS_TOPIC,
            ordered=True,
            reset="analytics.services.reset_sales",
        ),
    ),
    queues=(TaskQueue("analytics"),),
    beat=(
        Every(5.0, "analytics.fold_additions"),
        Every(3600.0, "analytics.prune_orders_per_minute", queue="analytics"),
    ),
    hops=("analytics.watching.hops",),
    alarms=(
        Alarm(
            name="FoldStandsStill",
            figure='upkeep_last_done_seconds{job="fold_additions"}',
            bound=300,
            seconds=300,
            absent=True,
            sentence="Last fold of the additions to the sales figures: {value}. Reads of figures get slower.",
        ),
        Alarm(
            name="FiguresSetAside",
            figure="sales_figures_set_aside",
            bound=0,
            seconds=60,
            sentence="Additions that could not be folded: {value}. The sales figures lack them.",
        ),
    ),
    paths=(
        _path("analytics/summary", "SummaryView"),
        _path("analytics/metrics", "SalesMetricsView"),
        _path("analytics/top-products", "TopProductsView"),
    ),
    tag="analytics",
)
