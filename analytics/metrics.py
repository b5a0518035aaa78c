"""Metrics of the sales figures."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

FOREIGN_EVENTS = Counter(
    "sales_foreign_events_total",
    "Events counted in the sales figures that our outbox does not hold.",
)
SET_ASIDE = Gauge(
    "sales_figures_set_aside",
    "Additions that could not be folded into their figure and wait for an operator.",
    multiprocess_mode="mostrecent",
)
