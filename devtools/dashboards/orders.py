"""The app orders: its endpoints, its events, its handler."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import (
    bound_of,
    dashboard,
    lines,
    newest,
    number,
    quantile,
    rate,
    requests,
)

__all__ = ["made"]

OURS = 'path=~"orders.*"'
PLACED = 'method="POST",path="orders"'
HANDLER = 'handler="record_processed_events"'
TOPICS = 'topic=~"order-events|orders.created|stock"'


def made() -> Dashboard:
    """Requests, events, and the handler `record_processed_events`."""
    return dashboard(
        "orders",
        "Orders",
        "POST and GET /orders, their events, and the handler of orders.created.",
        [
            number(
                "Placed, a minute",
                "POST /orders with status 200 or 201.",
                rate("http_requests_total", where=f'{PLACED},status=~"2.."', times=60),
            ),
            number(
                "Not answered, a minute",
                "Answers with a status from 500.",
                rate("http_requests_total", where=f'{OURS},status=~"5.."', times=60),
            ),
            number(
                "POST, 99 %",
                "Time from the first byte of the request to the last of the answer.",
                quantile(0.99, "http_request_duration_seconds", where=PLACED),
                unit="s",
            ),
            number(
                "Oldest not applied",
                "Age of the oldest event of orders.created that is not applied.",
                newest("handler_oldest_unapplied_seconds", where=HANDLER),
                unit="s",
                bound=bound_of("HandlerLag"),
            ),
            *requests(OURS),
            lines(
                "Events published",
                "Events per second, by topic.",
                ("{{topic}}", rate("outbox_published_total", "topic", where=TOPICS)),
            ),
            lines(
                "Orders of one transaction",
                "Number of requests that share a COMMIT.",
                ("50 %", quantile(0.5, "hot_path_batch_commands", where='path="POST orders"')),
                ("99 %", quantile(0.99, "hot_path_batch_commands", where='path="POST orders"')),
            ),
            lines(
                "record_processed_events",
                "Events per second.",
                ("applied", rate("effects_applied_total", where=HANDLER)),
                ("set aside", rate("dead_letters_parked_total", where=HANDLER)),
            ),
            lines(
                "Commit to effect",
                "Time from the order to its row in processed_events.",
                ("50 %", quantile(0.5, "effects_commit_to_effect_seconds", where=HANDLER)),
                ("99 %", quantile(0.99, "effects_commit_to_effect_seconds", where=HANDLER)),
                unit="s",
            ),
        ],
    )
