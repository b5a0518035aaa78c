"""The app notifications: accepted, waiting, sent, failed."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import bound_of, dashboard, lines, newest, number, quantile, rate

__all__ = ["made"]

OURS = 'path=~"api/v1/.*"'
ATTEMPTS = "notification_attempts_total"


def made() -> Dashboard:
    """From a request to the provider's answer."""
    return dashboard(
        "notifications",
        "Notifications",
        "SMS, e-mail and push: accepted and waiting notifications, and the answers of providers.",
        [
            number(
                "Delivered, a minute",
                "Attempts that a provider accepted.",
                rate(ATTEMPTS, where='outcome="delivered"', times=60),
            ),
            number(
                "Failed, a minute",
                "Attempts that a provider refused, or that failed.",
                rate(ATTEMPTS, where='outcome=~"refused|failed"', times=60),
            ),
            number(
                "Oldest ready",
                "Age of the oldest ready notification that no sender has claimed.",
                newest("notifications_oldest_waiting_seconds", where='reason="ready"'),
                unit="s",
                bound=bound_of("NotificationsWait"),
            ),
            number(
                "Breakers open",
                "Open and half open breakers of providers.",
                "count(max by (provider, channel) (notification_breaker_state) > 0) or vector(0)",
                bound=0,
            ),
            lines(
                "Accepted",
                "Accepted notifications per second, for now or later.",
                (
                    "{{channel}} {{priority}}",
                    rate("notifications_accepted_total", "channel", "priority"),
                ),
            ),
            lines(
                "Attempts",
                "Attempts per second, by outcome.",
                (
                    "{{channel}} {{provider}} {{outcome}}",
                    rate(ATTEMPTS, "channel", "provider", "outcome"),
                ),
            ),
            lines(
                "Accepted to delivered",
                "Time by priority; for a scheduled notification from its scheduled time.",
                ("{{priority}} 50 %", quantile(0.5, "notification_delivery_seconds", "priority")),
                ("{{priority}} 99 %", quantile(0.99, "notification_delivery_seconds", "priority")),
                unit="s",
            ),
            lines(
                "Calls of providers, 99 %",
                "Time of a call to its answer.",
                (
                    "{{channel}} {{provider}}",
                    quantile(0.99, "notification_send_seconds", "channel", "provider"),
                ),
                unit="s",
            ),
            lines(
                "Waiting",
                "Waiting notifications by reason, counted up to 100,000.",
                (
                    "{{reason}}",
                    "sum by (reason) (max by (channel, priority, reason) (notifications_waiting))",
                ),
                ("not made ready", newest("notifications_not_ready")),
            ),
            lines(
                "Oldest waiting",
                "Age of the oldest, since it could first have been sent.",
                ("{{reason}}", newest("notifications_oldest_waiting_seconds", "reason")),
                ("not made ready", newest("notifications_oldest_not_ready_seconds")),
                unit="s",
            ),
            lines(
                "Channels paused",
                "1: an operator has paused the channel, and none of its notifications are sent.",
                ("{{channel}}", newest("notification_channel_paused", "channel")),
            ),
            lines(
                "Breakers",
                "0 closed, 1 half open, 2 open; and openings per hour.",
                (
                    "{{provider}} {{channel}}",
                    newest("notification_breaker_state", "provider", "channel"),
                ),
                (
                    "{{provider}} {{channel}} opened",
                    rate("notification_breaker_opened_total", "provider", "channel", times=3600),
                ),
            ),
            lines(
                "Late and expired",
                "Per second: reports of a sender whose lease had ended, and notifications whose time was"
                " over.",
                ("late", rate("notification_late_sends_total")),
                ("expired", rate("notifications_expired_total")),
            ),
            lines(
                "Senders",
                "Processes that send; processes that use their own share of the limit because Redis is unavailable.",
                ("all", newest("notification_senders")),
                ("without Redis", "sum(notifications_paced_without_redis)"),
            ),
            lines(
                "Requests",
                "Requests per second, by method, path and status.",
                (
                    "{{method}} {{path}} {{status}}",
                    rate("http_requests_total", "method", "path", "status", where=OURS),
                ),
                unit="reqps",
            ),
        ],
    )
