"""Metrics of the admin's login."""

from prometheus_client import Counter

LOGINS = Counter(
    "admin_logins_total",
    "Logins to the admin, by result: accepted, failed, refused (too many were tried).",
    ["result"],
)
for _result in ("accepted", "failed", "refused"):
    LOGINS.labels(_result)  # shown as 0, so that the first one is a rise
