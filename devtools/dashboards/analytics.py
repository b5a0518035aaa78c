"""The app analytics: the handler of the sales figures, their fold, their endpoints."""

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
    sql_number,
)

__all__ = ["made"]

OURS = 'path=~"analytics/.*"'
HANDLER = 'handler="record_sales"'


def made() -> Dashboard:
    """The way into the figures, and those who read them."""
    return dashboard(
        "analytics",
        "Analytics",
        "From orders to sales figures: the handler record_sales, the fold, and additions that are not folded.",
        [
            number(
                "Oldest not applied",
                "Age of the oldest event of order-events that is not applied.",
                newest("handler_oldest_unapplied_seconds", where=HANDLER),
                unit="s",
                bound=bound_of("HandlerLag"),
            ),
            number(
                "Last fold",
                "Time since additions were last folded into the figures.",
                'min(upkeep_last_done_seconds{job="fold_additions"})',
                unit="s",
                bound=bound_of("FoldStandsStill"),
            ),
            number(
                "Set aside",
                "Additions that could not be folded and wait for an operator.",
                newest("sales_figures_set_aside"),
                bound=bound_of("FiguresSetAside"),
            ),
            sql_number(
                "Additions to fold",
                "Chunks of events whose additions are not folded; readers add them. Counted up to"
                " 10,000.",
                "SELECT count(*) AS value FROM (SELECT FROM sales_additions LIMIT 10000) waiting",
            ),
            lines(
                "record_sales",
                "Events per second.",
                ("applied", rate("effects_applied_total", where=HANDLER)),
                ("set aside", rate("dead_letters_parked_total", where=HANDLER)),
                ("of other producers", rate("sales_foreign_events_total")),
            ),
            lines(
                "Commit to figures",
                "Time from the change of an order to the sales figures.",
                ("50 %", quantile(0.5, "effects_commit_to_effect_seconds", where=HANDLER)),
                ("99 %", quantile(0.99, "effects_commit_to_effect_seconds", where=HANDLER)),
                unit="s",
            ),
            lines(
                "Requests",
                "Requests per second, by path and status.",
                ("{{path}} {{status}}", rate("http_requests_total", "path", "status", where=OURS)),
                unit="reqps",
            ),
            lines(
                "Answer times, 99 %",
                "By path.",
                (
                    "{{path}}",
                    quantile(0.99, "http_request_duration_seconds", "path", where=OURS),
                ),
                unit="s",
            ),
        ],
    )
