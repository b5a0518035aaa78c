"""How the feeds are wired: their paths, their topics."""

from __future__ import annotations

from feeds.events import FEED_EVENTS, FEED_EVENTS_TOPIC, FOLLOW_EVENTS, FOLLOW_EVENTS_TOPIC
from outbox.declaration import Every, Route, TaskQueue
from outbox.watching import Alarm
from restapi.declaration import App, Path, Socket

__all__ = ["WIRING"]


def _path(pattern: str, view: str) -> Path:
    return Path(pattern=pattern, view=f"feeds.api.{view}", read="feeds:read", write="feeds:write")


WIRING = App(
    routes=(
        # Neither needs an order: slices read what is true when they run, and numbers are sums.
        Route(
            handler="cut_posts",
            event=FEED_EVENTS,
            topic=FEED_EVENTS_TOPIC,
            ordered=False,
            reset="feeds.fanout.handlers.reset_slices",
        ),
        # A replay would count followers twice: `manage.py check_feeds --repair` recounts them.
        Route(
            handler="count_follows", event=FOLLOW_EVENTS, topic=FOLLOW_EVENTS_TOPIC, ordered=False
        ),
    ),
    publishes=(*FEED_EVENTS, *FOLLOW_EVENTS),
    queues=(TaskQueue("feeds"), TaskQueue("fanout")),
    beat=(
        Every(1.0, "feeds.apply_slices", queue="fanout"),
        Every(5.0, "feeds.measure_slices"),
        Every(60.0, "feeds.prune_changes"),
    ),
    hops=("feeds.fanout.measuring.hops",),
    alarms=(
        Alarm(
            name="FeedSlicesFailed",
            figure="feed_fanout_slices_failed",
            bound=0,
            seconds=60,
            critical=True,
            sentence="Slices of the fan-out that failed five times: {value}. Posts are missing in feeds.",
        ),
        Alarm(
            name="FeedFanoutBehind",
            figure="feed_fanout_oldest_slice_seconds",
            bound=30,
            seconds=60,
            critical=True,
            sentence="The oldest slice of the fan-out has waited {value}.",
        ),
        Alarm(
            name="FeedChangesNotPruned",
            figure='upkeep_last_done_seconds{job="prune_feed_changes"}',
            bound=3600,
            seconds=300,
            absent=True,
            sentence="Last prune of the table feed_changes: {value}. The table grows.",
        ),
        Alarm(
            name="FeedNodesNotHeld",
            figure="feed_nodes_not_held_total",
            bound=10,
            rises=300,
            seconds=60,
            critical=True,
            sentence="Processes could not hold a node number {value} times in five minutes; without one, new posts are refused.",
        ),
    ),
    # What cannot be a user's id, a slash in it for one, is refused in words: hence <text:…>.
    paths=(
        _path("posts", "views.PostsView"),
        _path("posts/<str:post_id>", "views.PostView"),
        _path("follow", "views.FollowView"),
        _path("feeds/<text:user_id>", "feed.FeedView"),
        _path("users/<text:user_id>/following", "views.FollowingView"),
        _path("users/<text:user_id>/followers", "views.FollowersView"),
    ),
    hot_paths=("feeds.api.commands.CREATE_POST", "feeds.api.feed.READ_FEED"),
    sockets=(
        Socket(
            path=Path(pattern="ws/feeds/<text:user_id>", read="feeds:read"),
            consumer="feeds.consumers.LiveFeed",
        ),
    ),
    status_logs=("feeds.realtime.FEED_LOG",),
    tag="feeds",
)
