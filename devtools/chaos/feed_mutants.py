"""Guards of feeds, broken one at a time, as mutants.py does it for those of the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.conf import settings

from feeds import cache
from feeds.fanout import follows, modes, trimming, work
from feeds.fanout.claims import SliceClaims
from feeds.fanout.slices import SliceBatch, WrittenSlices, finish
from feeds.models import AuthorMode, FeedSlice
from feeds.reading.changes import Changes

__all__ = ["BREAKS", "without"]


def without(text: str, part: str, instead: str = "") -> str:
    """The text with one part replaced, which must be in it: else nothing would be broken."""
    if part not in text:
        raise LookupError(f"{part!r} is not in {text!r}")
    return text.replace(part, instead)


def hit_filter_off() -> None:
    """Nobody asks what has changed since a feed was cached."""
    Changes.believes = lambda *_: True  # type: ignore[method-assign]
    Changes.learn = lambda *_: None  # type: ignore[method-assign]


def finished_before_entries() -> None:
    """A slice is gone as soon as it is claimed, as a message is that is acknowledged early; the worker
    has it in its head."""
    in_mind: dict[int, FeedSlice] = {}
    take = SliceClaims.take

    def take_and_finish(self: SliceClaims) -> SliceBatch | None:
        batch = take(self)
        if batch is not None:
            in_mind.update(FeedSlice.objects.in_bulk([lease.id for lease in batch.leases]))
            finish(batch.leases)
        return batch

    def remembering(
        write: Callable[[SliceBatch], WrittenSlices],
    ) -> Callable[[SliceBatch], WrittenSlices]:
        def remember_and_write(batch: SliceBatch) -> WrittenSlices:
            FeedSlice.objects.bulk_create(in_mind.pop(lease.id) for lease in batch.leases)
            return write(batch)

        return remember_and_write

    SliceClaims.take = take_and_finish  # type: ignore[method-assign]
    for kind, writer in work._WRITERS.items():
        work._WRITERS[kind] = remembering(writer)


def finished_unconfirmed() -> None:
    """Whether Redis has heard of it is of no interest."""
    update = work._update_caches

    def update_if_there(written: WrittenSlices) -> None:
        try:
            update(written)
        except cache.CacheUnavailable:
            return

    work._update_caches = update_if_there


def entries_without_numbers() -> None:
    """A clean-up deletes whatever is of the author."""
    up_to_its_own = "AND feed_entries.follow_number <= ended.follow_number"
    of_the_active = "AND feed_entries.follow_number IS DISTINCT FROM ended.active_number"
    follows._CLEAN_UP = without(without(follows._CLEAN_UP, up_to_its_own), of_the_active)


def no_floor() -> None:
    """Windows are trimmed, and nobody says from where on they are complete."""
    trimming_sql = trimming._trimming
    trimming._trimming = lambda: without(
        trimming_sql(),
        "SELECT user_id, floor FROM full_window ORDER BY user_id",
        "SELECT user_id, floor FROM full_window WHERE false",
    )


def fill_without_mark() -> None:
    """What was read is stored, whatever has happened since."""
    cache._STORE = without(cache._STORE, "redis.call('GET', key) == ARGV[1]", "true")


def key_without_run_id() -> None:
    """A cached feed is believed whichever Redis it is from."""
    of_run = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"
    for name in ("_LOOK", "_SET_MARK", "_STORE", "_TOUCH", "_ADD"):
        setattr(cache, name, without(getattr(cache, name), of_run, "'any'"))


def threshold_alone() -> None:
    """An author below the threshold is stored at once."""

    def set_modes(counts: Mapping[str, tuple[int, str]]) -> None:
        at = settings.FEED_MERGE_FOLLOWERS
        for author, (followers, mode) in counts.items():
            wanted = AuthorMode.MERGED if followers >= at else AuthorMode.STORED
            if wanted != mode:
                modes._set_mode([author], wanted)

    modes.set_modes = set_modes


BREAKS: Mapping[str, Callable[[], None]] = {
    "hit-filter-off": hit_filter_off,
    "finished-before-entries": finished_before_entries,
    "finished-unconfirmed": finished_unconfirmed,
    "entries-without-numbers": entries_without_numbers,
    "no-floor": no_floor,
    "fill-without-mark": fill_without_mark,
    "key-without-run-id": key_without_run_id,
    "threshold-alone": threshold_alone,
}
