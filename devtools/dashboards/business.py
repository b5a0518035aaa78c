"""The business: what customers do, and how soon it has its effect."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import (
    bound_of,
    dashboard,
    lines,
    newest,
    quantile,
    rate,
    sql_lines,
    sql_number,
    sql_table,
)

__all__ = ["made"]

PLACED = 'method="POST",path="orders",status=~"2.."'
POSTED = 'method="POST",path="posts",status=~"2.."'
FOLLOWED = 'method="POST",path="follow",status=~"2.."'
# Dimensions of sales_metrics are times as text, so that a time range is a range of its primary key.
MONTH_AGO = "(now() - interval '30 days')"
MINUTE, DAY = 'YYYY-MM-DD"T"HH24:MI', "YYYY-MM-DD"


def _since(form: str, begin: str) -> str:
    return f"to_char({begin}::timestamptz AT TIME ZONE 'UTC', '{form}')"


def made() -> Dashboard:
    """Orders, revenue, posts, notifications, relayed messages, and their delays."""
    return dashboard(
        "business",
        "Business",
        "Orders, revenue, posts, notifications and relayed messages, on one time axis.",
        [
            sql_number(
                "Revenue",
                "The revenue of all orders that are not cancelled.",
                "SELECT value FROM sales_figures"
                " WHERE metric_name = 'revenue_total' AND dimension = 'all'",
                unit="currencyUSD",
            ),
            sql_number(
                "Orders",
                "Ever placed.",
                "SELECT value FROM sales_figures"
                " WHERE metric_name = 'orders_total' AND dimension = 'all'",
            ),
            sql_number(
                "Cancelled",
                "The number of cancelled orders.",
                "SELECT coalesce(sum(value), 0) AS value FROM sales_figures"
                " WHERE metric_name = 'orders_total' AND dimension = 'CANCELLED'",
            ),
            sql_number(
                "Revenue today",
                "The day is in UTC; cancelled orders do not count.",
                "SELECT coalesce(sum(value), 0) AS value FROM sales_figures"
                " WHERE metric_name = 'revenue_total'"
                f" AND dimension = {_since(DAY, 'now()')}",
                unit="currencyUSD",
            ),
            sql_lines(
                "Orders by minute",
                "Orders by the time of the order, as in the sales figures.",
                "SELECT (dimension || ':00Z')::timestamptz AS time, value AS orders"
                " FROM sales_metrics WHERE metric_name = 'orders_per_minute'"
                f" AND dimension BETWEEN {_since(MINUTE, '$__timeFrom()')}"
                f" AND {_since(MINUTE, '$__timeTo()')} ORDER BY dimension LIMIT 10000",
            ),
            lines(
                "Accepted, an hour",
                "Accepted requests, whose changes are stored.",
                ("orders", rate("http_requests_total", where=PLACED, times=3600)),
                ("posts", rate("http_requests_total", where=POSTED, times=3600)),
                ("follows", rate("http_requests_total", where=FOLLOWED, times=3600)),
                ("notifications", rate("notifications_accepted_total", times=3600)),
                ("relayed messages", rate("events_published_total", times=3600)),
            ),
            sql_table(
                "Revenue by day",
                "The last thirty days in UTC.",
                "SELECT dimension AS day, value AS revenue FROM sales_metrics"
                " WHERE metric_name = 'revenue_total'"
                f" AND dimension BETWEEN {_since(DAY, MONTH_AGO)}"
                f" AND {_since(DAY, 'now()')} ORDER BY dimension DESC LIMIT 31",
            ),
            sql_table(
                "Best sellers",
                "Units in orders that are not cancelled.",
                "SELECT dimension AS product, value AS units FROM sales_metrics"
                " WHERE metric_name = 'top_products' AND value > 0"
                " ORDER BY value DESC, dimension LIMIT 10",
            ),
            lines(
                "Until it has its effect, 99 %",
                "From the acceptance of an order to the figures, of a post to its readers' feeds, of a"
                " notification to its delivery, of a RabbitMQ message to Kafka.",
                (
                    "order to figures",
                    quantile(
                        0.99, "effects_commit_to_effect_seconds", where='handler="record_sales"'
                    ),
                ),
                ("post to feeds", quantile(0.99, "feed_lag_seconds")),
                ("notification", quantile(0.99, "notification_delivery_seconds")),
                ("relayed message", quantile(0.99, "processing_duration_seconds")),
                unit="s",
            ),
            lines(
                "What failed",
                "Requests answered with a status from 500, events set aside, failed notifications, messages"
                " that became dead letters, per second.",
                ("requests", rate("http_requests_total", where='status=~"5.."')),
                ("events", rate("dead_letters_parked_total")),
                (
                    "notifications",
                    rate("notification_attempts_total", where='outcome=~"refused|failed"'),
                ),
                ("notifications expired", rate("notifications_expired_total")),
                ("relayed messages", rate("dead_letter_total")),
            ),
            lines(
                "The oldest that waits",
                "Age of the oldest waiting item; it is late, not lost.",
                ("committed event", newest("outbox_oldest_pending_seconds")),
                ("event in Kafka", newest("handler_oldest_unapplied_seconds")),
                ("slice of a post", newest("feed_fanout_oldest_slice_seconds")),
                (
                    "notification",
                    newest("notifications_oldest_waiting_seconds", where='reason="ready"'),
                ),
                ("message of RabbitMQ", newest("oldest_unacked_seconds")),
                unit="s",
                bound=bound_of("OutboxOldestAge"),
            ),
            lines(
                "Live feeds",
                "Open WebSockets of feeds and notifications.",
                ("{{path}}", "sum by (path) (websockets_open)"),
            ),
        ],
        of="6h",
    )
