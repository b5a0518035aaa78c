"""The web processes: requests, hot paths, WebSockets, callers."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import bound_of, dashboard, lines, number, quantile, rate

__all__ = ["made"]

# Scrapes and probes are no visitors.
VISITORS = 'path!~"metrics|health.*"'


def made() -> Dashboard:
    """All requests of all apps, before and in Django."""
    return dashboard(
        "web",
        "Web",
        "Requests of all apps, the hot paths before Django, WebSockets and live feeds, limits.",
        [
            number("Requests a second", "", rate("http_requests_total", where=VISITORS)),
            number(
                "From 500 on, a minute",
                "",
                rate("http_requests_total", where='status=~"5.."', times=60),
            ),
            number(
                "Answer time, 99 %",
                "",
                quantile(0.99, "http_request_duration_seconds", where=VISITORS),
                unit="s",
            ),
            number("Open WebSockets", "Now.", "sum(websockets_open)"),
            lines(
                "Requests",
                "Requests per second, by status.",
                ("{{status}}", rate("http_requests_total", "status", where=VISITORS)),
                unit="reqps",
            ),
            lines(
                "Answer times",
                "Time over all paths.",
                ("50 %", quantile(0.5, "http_request_duration_seconds", where=VISITORS)),
                ("99 %", quantile(0.99, "http_request_duration_seconds", where=VISITORS)),
                unit="s",
            ),
            lines(
                "Hot paths: requests of a batch",
                "Requests in a batch at the median, by path.",
                ("{{path}}", quantile(0.5, "hot_path_batch_commands", "path")),
            ),
            lines(
                "Hot paths: waiting",
                "Requests that wait for their batch.",
                ("{{path}}", "sum by (path) (hot_path_waiting_requests)"),
            ),
            lines(
                "Hot paths: the oldest request",
                "Age of the oldest request without an answer.",
                ("{{path}}", "max by (path) (hot_path_oldest_request_seconds)"),
                unit="s",
            ),
            lines(
                "Limits and keys",
                "Per second: requests that passed without a limit because Redis was unavailable; failed reads of the keys.",
                ("let through", rate("rate_limit_failed_open_total")),
                ("keys not read", rate("api_keys_unread_total")),
            ),
            lines(
                "Logins to the admin",
                "Logins per hour; refused ones were tried too often.",
                ("{{result}}", rate("admin_logins_total", "result", times=3600)),
            ),
            lines(
                "WebSockets",
                "WebSockets opened and closed per second, the closed ones by code.",
                ("{{path}} opened", rate("websockets_opened_total", "path")),
                ("{{path}} {{code}}", rate("websockets_closed_total", "path", "code")),
            ),
            lines(
                "Messages of WebSockets",
                "A second.",
                (
                    "{{path}} {{direction}}",
                    rate("websocket_messages_total", "path", "direction"),
                ),
            ),
            lines(
                "Live feeds: delay, 99 %",
                "Time from a change to the queues of the sockets that want it.",
                ("{{log}}", quantile(0.99, "status_feed_lag_seconds", "log")),
                unit="s",
            ),
            lines(
                "Live feeds",
                "Open sockets, and changes per second that were numbered and read.",
                ("{{log}} followers", "sum by (log) (status_feed_clients)"),
                ("{{log}} numbered", rate("status_log_numbered_total", "log")),
                ("{{log}} read", rate("status_feed_changes_total", "log")),
                ("{{log}} purged", rate("status_log_purged_total", "log")),
            ),
            lines(
                "Live feeds: what went wrong",
                "Per second: sockets cut off, gaps reported, failed reads.",
                ("{{log}} cut off", rate("status_feed_cut_off_total", "log")),
                ("{{log}} gaps", rate("status_feed_gaps_total", "log")),
                ("{{log}} unread", rate("status_feed_unread_total", "log")),
            ),
            lines(
                "Live feeds: oldest change without a number",
                "",
                ("{{log}}", "max by (log) (status_log_unnumbered_seconds)"),
                unit="s",
                bound=bound_of("StatusLogUnnumbered"),
            ),
        ],
    )
