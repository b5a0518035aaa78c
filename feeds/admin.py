"""Pages of posts, follows and slices. Each list goes along an index, however many rows there are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from feeds import queries
from feeds.events import events_of_post
from feeds.models import FeedSlice, Follow, FollowListing, Post
from outbox.admin.readonly import (
    ReadOnlyAdmin,
    clipped,
    journey,
    outbox_links,
    utc,
    whole_id,
)
from outbox.admin.search import WantedId, register_finder

__all__ = ["FeedSliceAdmin", "FollowAdmin", "PostAdmin"]

POSTS_OF_AUTHOR = 100  # whose events are looked for
POSTS_FOUND = 1_000
FOLLOWERS_FOUND = 1_000


@register_finder
def events_caused_by(text: str) -> tuple[Collection[UUID], str]:
    """The events of the post with this id, and those of an author's newest posts."""
    post_id = queries.parse_post_id(text)
    posts = [post_id] if post_id else queries.newest_posts_of(text, POSTS_OF_AUTHOR + 1)
    events = {UUID(event) for post in posts[:POSTS_OF_AUTHOR] for event in events_of_post(post)}
    more = len(posts) > POSTS_OF_AUTHOR
    left_out = f"Of this author, only the events of the newest {POSTS_OF_AUTHOR} posts."
    return events, left_out if more else ""


@admin.register(Post)
class PostAdmin(ReadOnlyAdmin):
    """Newest first."""

    search_help_text = "A whole id: of a post, or of an author who has posts"
    ordering = ("-id",)
    list_display = (
        whole_id("id"),
        clipped("author_id"),
        clipped("content"),
        utc("created_at"),
        utc("deleted_at"),
    )
    fields = ("id", "author_id", "content", "created_at", "deleted_at", "events", journey("id"))

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """A post, or what an author has not deleted, the newest of it."""
        post_id = queries.parse_post_id(wanted.text)
        if post_id and Post.objects.filter(pk=post_id).exists():
            return rows.filter(pk=post_id)
        posts = queries.newest_posts_of(wanted.text, POSTS_FOUND + 1)
        if len(posts) > POSTS_FOUND:
            wanted.notes.append(
                f"More than {POSTS_FOUND:,} are of this author: these are the newest."
            )
        return rows.filter(pk__in=posts[:POSTS_FOUND])

    @admin.display(description="events")
    def events(self, post: Post) -> SafeString:
        created, deleted = events_of_post(post.id)
        return outbox_links([created, deleted] if post.deleted_at else [created])


@admin.register(FollowListing)
class FollowAdmin(ReadOnlyAdmin):
    """By follower and followee, along the table's key."""

    search_help_text = "A whole id: of a follower or a followee; or both, as follower/followee"
    ordering = ("follower_id", "followee_id")
    list_display = (
        clipped("follower_id"),
        clipped("followee_id"),
        "number",
        "active",
        "backfilled",
        utc("at"),
    )
    fields = ("follower_id", "followee_id", "number", "active", "backfilled", "at")

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> FollowListing | None:
        """The row, found by the two columns of the index instead of the view's computed id."""
        follower_id, _, followee_id = object_id.partition("/")
        if "\0" in object_id:
            return None
        return FollowListing.objects.filter(
            follower_id=follower_id, followee_id=followee_id
        ).first()

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        """Finds a pair, the users that a user follows, or the followers of a user."""
        follower_id, slash, followee_id = wanted.text.partition("/")
        if slash:
            return rows.filter(follower_id=follower_id, followee_id=followee_id)
        if Follow.objects.filter(follower_id=wanted.text).exists():
            wanted.notes.append(
                "These are the users that this user follows; the API lists the followers."
            )
            return rows.filter(follower_id=wanted.text)
        # Along index follows_of_followee; all of them sorted by follower may be a million.
        followers = queries.some_followers_of(wanted.text, FOLLOWERS_FOUND + 1)
        if len(followers) > FOLLOWERS_FOUND:
            wanted.notes.append(f"More than {FOLLOWERS_FOUND:,} follow this user: these are some.")
        return rows.filter(follower_id__in=followers[:FOLLOWERS_FOUND], followee_id=wanted.text)


class FailedFilter(admin.SimpleListFilter):
    """What waits for somebody."""

    title = "state"
    parameter_name = "failed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "failed: waiting for somebody")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(failed_at__isnull=False) if self.value() else queryset


@admin.register(FeedSlice)
class FeedSliceAdmin(ReadOnlyAdmin):
    """Pieces of fan-out that are still to be done, oldest first."""

    search_help_text = "A whole id of a post"
    ordering = ("id",)
    list_filter = (FailedFilter,)
    list_display = (
        "id",
        "kind",
        clipped("author_id"),
        "post_id",
        "buckets",
        "size",
        "tries",
        "state",
        utc("due_at"),
        clipped("error"),
    )

    @admin.display(description="buckets")
    def buckets(self, piece: FeedSlice) -> str:
        return f"{piece.bucket_from} to {piece.bucket_to - 1}"

    @admin.display(description="state")
    def state(self, piece: FeedSlice) -> str:
        return queries.state_of_slice(piece)

    def find(self, rows: QuerySet[Any], wanted: WantedId) -> QuerySet[Any]:
        return rows.filter(post_id=queries.parse_post_id(wanted.text) or 0)
