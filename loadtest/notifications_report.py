"""A run of notifications as words, as JSON and against thresholds."""

from __future__ import annotations

import math
from typing import Any

from loadtest.notifications import NotificationsPlan
from loadtest.notifications_tally import NotificationsTally
from loadtest.words import TITLES, RunReport, row_of_times

__all__ = ["NotificationsReport", "progress_of_notifications"]


def progress_of_notifications(tally: NotificationsTally) -> str:
    return f"{tally.accepted:,} notifications accepted, {tally.errors.total():,} errors"


class NotificationsReport(RunReport[NotificationsPlan, NotificationsTally]):
    """Also what became of each, and what came to the provider."""

    def in_words(self) -> str:
        tally = self.tally
        ends = ", ".join(f"{count:,} {status}" for status, count in tally.ends.most_common())
        lines = [
            TITLES,
            row_of_times("request, from when it was due", tally.latency),
            row_of_times("answer until the provider's call", tally.effect),
            f"{tally.accepted:,} notifications accepted in {tally.requests:,} of {tally.due:,}"
            f" requests, {self.sent_and_failed()}",
            f"after {tally.waited:.1f} s: {ends or 'not looked for'}; lost {_count(tally.lost)}",
        ]
        if not math.isnan(tally.unseen):
            lines.append(
                f"provider: {tally.calls:,} calls, {tally.refused:,} answered 503,"
                f" {_count(tally.repeated)} repeated; delivered and never called {_count(tally.unseen)}"
            )
        return "\n".join(lines + self.threshold_lines())

    def as_dict(self) -> dict[str, Any]:
        tally = self.tally
        return {
            **super().as_dict(),
            "requests": tally.requests,
            "ends": dict(tally.ends.most_common()),
            "provider_calls": tally.calls,
            "provider_refused": tally.refused,
        }


def _count(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:,.0f}"
