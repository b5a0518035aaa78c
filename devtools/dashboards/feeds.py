"""The app feeds: posts, fan-out, pages, live feeds."""

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

OURS = 'path=~"posts.*|follow|feeds/.*|users/.*"'


def made() -> Dashboard:
    """From a post to its readers' feeds."""
    return dashboard(
        "feeds",
        "Feeds",
        "Posts and follows, the fan-out into stored feeds, the cache, and readers.",
        [
            number(
                "Post to feeds, 99 %",
                "Time from the acceptance of a post until the feeds of its slices show it.",
                quantile(0.99, "feed_lag_seconds"),
                unit="s",
            ),
            number(
                "Slices waiting",
                "Waiting slices, counted up to 100,000; failed ones are not included.",
                newest("feed_fanout_slices_waiting"),
            ),
            number(
                "Oldest slice",
                "Age of the oldest waiting slice.",
                newest("feed_fanout_oldest_slice_seconds"),
                unit="s",
                bound=bound_of("FeedFanoutBehind"),
            ),
            number(
                "Slices failed",
                "Slices that failed and wait for an operator.",
                newest("feed_fanout_slices_failed"),
                bound=bound_of("FeedSlicesFailed"),
            ),
            *requests(OURS),
            lines(
                "Post to feeds, by the author's followers",
                "The 99th percentile.",
                ("{{followers}}", quantile(0.99, "feed_lag_seconds", "followers")),
                unit="s",
            ),
            lines(
                "Fan-out",
                "Entries written or deleted per second, and lost nudges.",
                ("{{kind}}", rate("feed_fanout_entries_total", "kind")),
                ("nudges lost", rate("feed_fanout_nudges_failed_total")),
            ),
            lines(
                "Events applied",
                "Events per second, by type.",
                ("{{type}}", rate("feed_events_processed_total", "type")),
            ),
            lines(
                "Time of an effect, 99 %",
                "Time for a chunk of events, by handler.",
                (
                    "{{handler}}",
                    quantile(0.99, "feed_event_processing_duration_seconds", "handler"),
                ),
                unit="s",
            ),
            lines(
                "Pages",
                "Pages per second: from the cache, and from PostgreSQL.",
                ("cache", rate("feed_cache_hits_total")),
                ("PostgreSQL", rate("feed_cache_misses_total")),
            ),
            lines(
                "Numbers of nodes",
                "Failed attempts per second to hold or renew a node number, which new posts need.",
                ("failed", rate("feed_nodes_not_held_total")),
            ),
            lines(
                "Age of these gauges",
                "If this is more than a minute, the gauges above are out of date.",
                ("fan-out", "time() - max(feed_fanout_measured_timestamp_seconds)"),
                unit="s",
            ),
        ],
    )
