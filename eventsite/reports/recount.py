"""The sales figures against a recount from the orders, in one snapshot.

While events are under way the recount takes each order as far as its events have been applied, so it
can be asked at any time. The part of other producers' events is subtracted first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from analytics.services import ALL, MINUTES_KEPT
from outbox.database.ask import row_of
from outbox.models import InboxReceipt

__all__ = ["DIFFERENCES_SHOWN", "FigureComparison", "FigureDifference", "ForeignFigure", "compare"]

HANDLER = "record_sales"
DIFFERENCES_SHOWN = 50
# Minutes may be pruned a moment after we looked at the clock.
PRUNING_MARGIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class FigureDifference:
    """A figure that is not what the orders add up to; an absent one is 0."""

    metric_name: str
    dimension: str
    figure: Decimal
    recount: Decimal


@dataclass(frozen=True, slots=True)
class ForeignFigure:
    """What events of other producers add to a figure."""

    metric_name: str
    dimension: str
    value: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureComparison:
    """What `compare` found.

    differences      the first 50, by metric and dimension
    different        how many there are
    figures          how many figures other than 0 there are on either side
    under_way        events of topic order-events that the figures do not hold yet
    foreign          the first 50 of other producers that are not 0; they are compared with nothing
    foreign_figures  how many there are
    set_aside        additions that could not be folded into their figure, and are missing in it
    """

    differences: Sequence[FigureDifference]
    different: int
    figures: int
    under_way: int
    foreign: Sequence[ForeignFigure] = ()
    foreign_figures: int = 0
    set_aside: int = 0


# A change is applied when its event has a receipt (parked: its effect is still to come), or
# when the outbox has deleted the event, which it does only when it is done.
_APPLIED_CHANGES = """
    change AS (
        SELECT change.id, change.order_id, change.from_status, change.to_status,
               CASE WHEN receipt.event_id IS NULL THEN event.event_id IS NULL
                    ELSE receipt.outcome <> %(parked)s END AS applied
        FROM order_changes change
        LEFT JOIN inbox_receipt receipt
               ON receipt.event_id = change.event_ids[1] AND receipt.handler = %(handler)s
        LEFT JOIN event_outbox event ON event.event_id = change.event_ids[1]
    )"""

# Each order as its applied events left it; one whose creation is under way is not there yet.
_KNOWN_ORDERS = """
    progress AS (
        SELECT order_id, bool_and(applied) AS whole,
               max(id) FILTER (WHERE applied) AS last_applied
        FROM change GROUP BY order_id
        HAVING bool_or(applied AND from_status IS NULL)
    ), known AS MATERIALIZED (
        SELECT orders.id, orders.total, orders.created_at AT TIME ZONE 'UTC' AS created_at,
               CASE WHEN progress.whole THEN orders.status ELSE change.to_status END AS status
        FROM progress
        JOIN orders ON orders.id = progress.order_id
        LEFT JOIN change ON change.id = progress.last_applied AND NOT progress.whole
    )"""

# The four metrics of the analytics contract.
_RECOUNT = """
    recount AS (
        SELECT 'orders_total' AS metric_name, coalesce(status, %(all)s) AS dimension,
               count(*)::numeric AS value
        FROM known GROUP BY GROUPING SETS ((), (status))
        UNION ALL
        SELECT 'revenue_total', coalesce(to_char(day, 'YYYY-MM-DD'), %(all)s), sum(total)
        FROM (SELECT date_trunc('day', created_at) AS day, total
              FROM known WHERE status <> 'CANCELLED') sold
        GROUP BY GROUPING SETS ((), (day))
        UNION ALL
        SELECT 'orders_per_minute', to_char(minute, 'YYYY-MM-DD"T"HH24:MI'), count(*)
        FROM (SELECT date_trunc('minute', created_at) AS minute FROM known) created
        GROUP BY minute
        UNION ALL
        SELECT 'top_products', line.product_id, sum(line.quantity)
        FROM known JOIN order_lines line ON line.order_id = known.id
        WHERE known.status <> 'CANCELLED' GROUP BY line.product_id
    )"""

# Ours are what is left when theirs are taken off.
_COMPARED = """
    theirs AS MATERIALIZED (
        SELECT metric_name, dimension, value FROM sales_figures_foreign
        WHERE value <> 0
          AND (metric_name <> 'orders_per_minute' OR dimension >= %(oldest_minute)s)
    ), ours AS (
        SELECT metric_name, dimension, figure.value - coalesce(theirs.value, 0) AS value
        FROM sales_figures figure LEFT JOIN theirs USING (metric_name, dimension)
    ), compared AS (
        SELECT metric_name, dimension, coalesce(ours.value, 0) AS figure,
               coalesce(recount.value, 0) AS recount
        FROM recount FULL JOIN ours USING (metric_name, dimension)
        WHERE (coalesce(ours.value, 0) <> 0 OR coalesce(recount.value, 0) <> 0)
          AND (metric_name <> 'orders_per_minute' OR dimension >= %(oldest_minute)s)
    )"""

_SQL = f"""
    WITH {_APPLIED_CHANGES}, {_KNOWN_ORDERS}, {_RECOUNT}, {_COMPARED}
    SELECT count(*), count(*) FILTER (WHERE figure <> recount),
           (SELECT count(*) FROM change WHERE NOT applied),
           ARRAY(SELECT ARRAY[metric_name, dimension, figure::text, recount::text]
                 FROM compared WHERE figure <> recount
                 ORDER BY metric_name, dimension LIMIT %(shown)s),
           (SELECT count(*) FROM theirs),
           ARRAY(SELECT ARRAY[metric_name, dimension, value::text]
                 FROM theirs ORDER BY metric_name, dimension LIMIT %(shown)s),
           (SELECT count(*) FROM sales_set_aside)
    FROM compared
"""


def compare() -> FigureComparison:
    """Recount all figures: ten seconds or so for a million orders; it locks nothing."""
    figures, different, under_way, rows, foreign_figures, theirs, set_aside = row_of(
        _SQL,
        {
            "all": ALL,
            "handler": HANDLER,
            "parked": InboxReceipt.Outcome.PARKED,
            "oldest_minute": f"{timezone.now() - MINUTES_KEPT + PRUNING_MARGIN:%Y-%m-%dT%H:%M}",
            "shown": DIFFERENCES_SHOWN,
        },
    )
    return FigureComparison(
        differences=[
            FigureDifference(metric, dimension, Decimal(figure), Decimal(recount))
            for metric, dimension, figure, recount in rows
        ],
        different=different,
        figures=figures,
        under_way=under_way,
        foreign=[
            ForeignFigure(metric, dimension, Decimal(value)) for metric, dimension, value in theirs
        ],
        foreign_figures=foreign_figures,
        set_aside=set_aside,
    )
