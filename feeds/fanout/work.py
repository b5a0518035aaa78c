"""Working through slices: claim, write, update the caches, finish, in this order. A worker that dies in
between leaves the slice to its lease, and doing all of it again has the same effect."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from feeds import cache, metrics
from feeds.fanout import follows, modes, posts
from feeds.fanout.claims import SliceClaims
from feeds.fanout.nudge import nudge, take_nudge
from feeds.fanout.slices import (
    SliceBatch,
    WrittenSlices,
    begin_alone,
    finish,
    give_up,
    try_later,
)
from feeds.fanout.trimming import trim
from feeds.models import SliceKind
from outbox.database.errors import describe, is_timeout, is_transient

__all__ = ["apply_batch", "apply_slices"]

RUN_SECONDS = 0.2  # then the other tasks of the queue have their turn
# After something that passes by itself: Redis is unavailable, a lock, a lost connection.
AGAIN_SECONDS = 1.0

_WRITERS: dict[SliceKind, Callable[[SliceBatch], WrittenSlices]] = {
    SliceKind.POST: posts.write_entries,
    SliceKind.DELETE: posts.delete_entries,
    SliceKind.BACKFILL: follows.backfill,
    SliceKind.CLEANUP: follows.clean_up,
    SliceKind.STORING: follows.fill_range,
    SliceKind.STORED: modes.end_storing,
}

log = structlog.get_logger("feeds.fanout")
_claims = SliceClaims()


def apply_slices() -> int:
    """Apply slices that are due, for a moment; returns how many were finished. Any number
    of workers may do it at once."""
    take_nudge()
    end = time.monotonic() + RUN_SECONDS
    finished = 0
    while batch := _claims.take():
        done = apply_batch(batch)
        if done is None:
            break
        finished += done
        if time.monotonic() >= end:
            nudge()
            break
    return finished


def apply_batch(batch: SliceBatch) -> int | None:
    """Apply slices that are held; how many were finished. None: something is unavailable, and the next batch
    would fare no better. A slice that fails is found by trying each alone."""
    if batch.alone and not begin_alone(batch.leases[0]):
        return 0
    try:
        written = _WRITERS[batch.kind](batch)
    except Exception as error:  # noqa: BLE001  (whatever it is, the slices stay)
        return _failed(batch, error)
    if written.again_in:
        try_later(batch.leases, written.again_in)
        return 0
    return _confirm(batch, written)


def _confirm(batch: SliceBatch, written: WrittenSlices) -> int | None:
    metrics.ENTRIES.labels(batch.kind).inc(written.count)
    try:
        _update_caches(written)
    except cache.CacheUnavailable as error:
        log.warning("caches_unavailable", error=str(error), slices=len(batch.leases))
        try_later(batch.leases, AGAIN_SECONDS, written=True)
        return None
    done = finish(batch.leases)
    for each in done:
        if each.seconds is not None:
            metrics.LAG.labels(_size_class(each.followers)).observe(max(0.0, each.seconds))
    trim(written.grown)
    return len(done)


def _update_caches(written: WrittenSlices) -> None:
    if written.entries:
        # With `as_of` a late update does no harm either: readers ask what has changed since.
        cache.add_entries(written.entries, as_of=written.as_of)
    if written.users:
        cache.touch_users(written.users)


def _failed(batch: SliceBatch, error: Exception) -> int | None:
    # A server that stops or has no room says nothing about a slice. A slice alone that took too long may be
    # to blame, and counts as failed; several are found out one by one, once they have begun often enough.
    is_alone, passes = len(batch.leases) == 1, is_transient(error)
    if passes and not (is_alone and is_timeout(error)):
        log.warning("slices_left", kind=batch.kind, error=describe(error))
        try_later(batch.leases, AGAIN_SECONDS)
        return None
    if not is_alone:
        alone = (SliceBatch(batch.kind, [lease]) for lease in batch.leases)
        return sum(apply_batch(each) or 0 for each in alone)
    [lease] = batch.leases
    is_over = give_up(lease, describe(error))
    log.error(
        "slice_failed", slice=lease.id, kind=batch.kind, error=describe(error), is_over=is_over
    )
    return None if passes else 0


def _size_class(followers: int) -> str:
    if followers < 0:
        return "merged"
    if followers <= 100:
        return "1-100"
    return "101-1000" if followers <= 1000 else "1001-"
