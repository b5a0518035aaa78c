"""Celery tasks of the feeds, one call each."""

from __future__ import annotations

from celery import shared_task

from feeds.events import decode_follow_event
from feeds.fanout import handlers, measuring, work
from feeds.reading import forgetting
from outbox.handlers.task import effect_task

__all__ = ["apply_slices", "count_follows", "cut_posts", "measure_slices", "prune_changes"]

cut_posts = effect_task(
    name="feeds.cut_posts",
    handler="cut_posts",
    effect=handlers.cut_posts,
    decode=handlers.decode_known,
)
count_follows = effect_task(
    name="feeds.count_follows",
    handler="count_follows",
    effect=handlers.count_follows,
    decode=decode_follow_event,
)


@shared_task(name="feeds.apply_slices")
def apply_slices() -> int:
    """Run by beat and by nudges; running many times at once does no harm."""
    return work.apply_slices()


@shared_task(name="feeds.measure_slices")
def measure_slices() -> None:
    """Run by beat; running twice at once does no harm."""
    measuring.measure()


@shared_task(name="feeds.prune_changes", time_limit=60)
def prune_changes() -> int:
    """Run by beat every minute; running twice at once does no harm. Returns the rows."""
    return forgetting.prune_changes()
