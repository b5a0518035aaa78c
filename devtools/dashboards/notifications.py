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
        "SMS, e-mail and push: what is accepted, what waits for what, what providers answer.",
        [
            number(
                "Delivered, a minute",
                "Attempts that a provider took.",
                rate(ATTEMPTS, where='outcome="delivered"', times=60),
            ),
            number(
                "Failed, a minute",
                "Attempts that a provider refused, or that failed.",
                rate(ATTEMPTS, where='outcome=~"refused|failed"', times=60),
            ),
            number(
                "Oldest ready",
                "That no sender has taken.",
                newest("notifications_oldest_waiting_seconds", where='reason="ready"'),
                unit="s",
                bound=bound_of("NotificationsWait"),
            ),
            number(
                "Breakers open",
                "Of providers, half open ones too.",
                "count(max by (provider, channel) (notification_breaker_state) > 0) or vector(0)",
                bound=0,
            ),
            lines(
                "Accepted",
                "A second, to be sent now or later.",
                (
                    "{{channel}} {{priority}}",
                    rate("notifications_accepted_total", "channel", "priority"),
                ),
            ),
            lines(
                "Attempts",
                "A second, by how they ended.",
                (
                    "{{channel}} {{provider}} {{outcome}}",
                    rate(ATTEMPTS, "channel", "provider", "outcome"),
                ),
            ),
            lines(
                "Accepted to delivered",
                "By priority; of a scheduled one from its time on.",
                ("{{priority}} 50 %", quantile(0.5, "notification_delivery_seconds", "priority")),
                ("{{priority}} 99 %", quantile(0.99, "notification_delivery_seconds", "priority")),
                unit="s",
            ),
            lines(
                "Calls of providers, 99 %",
                "From the beginning of a call to its answer.",
                (
                    "{{channel}} {{provider}}",
                    quantile(0.99, "notification_send_seconds", "channel", "provider"),
                ),
                unit="s",
            ),
            lines(
                "Waiting",
                "By what for; counted up to 100,000.",
                (
                    "{{reason}}",
                    "sum by (reason) (max by (channel, priority, reason) (notifications_waiting))",
                ),
                ("not made ready", newest("notifications_not_ready")),
            ),
            lines(
                "Oldest waiting",
                "Since it could first have been sent.",
                ("{{reason}}", newest("notifications_oldest_waiting_seconds", "reason")),
                ("not made ready", newest("notifications_oldest_not_ready_seconds")),
                unit="s",
            ),
            lines(
                "Channels paused",
                "1: somebody has paused it, and nothing of it is sent.",
                ("{{channel}}", newest("notification_channel_paused", "channel")),
            ),
            lines(
                "Breakers",
                "0 closed, 1 half open, 2 open; and how often they open, an hour.",
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
                "A second: reports of a sender whose lease had ended, and notifications whose time was"
                " over.",
                ("late", rate("notification_late_sends_total")),
                ("expired", rate("notifications_expired_total")),
            ),
            lines(
                "Senders",
                "Processes that send; those that pace themselves because Redis is lost.",
                ("all", newest("notification_senders")),
                ("without Redis", "sum(notifications_paced_without_redis)"),
            ),
            lines(
                "Requests",
                "A second, by method, path and answer.",
                (
                    "{{method}} {{path}} {{status}}",
                    rate("http_requests_total", "method", "path", "status", where=OURS),
                ),
                unit="reqps",
            ),
        ],
    )
