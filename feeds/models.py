"""Posts and follows are the truth; everything else here is a copy of it, or work on one. No I/O."""

from __future__ import annotations

from typing import Any

from django.db import models

__all__ = [
    "BUCKETS",
    "NODES",
    "AuthorMode",
    "ChangeKind",
    "FeedAuthor",
    "FeedChange",
    "FeedEntry",
    "FeedLog",
    "FeedNode",
    "FeedSlice",
    "FeedWindow",
    "Follow",
    "FollowListing",
    "LogKind",
    "Post",
    "SliceKind",
]

BUCKETS = 1024  # parts into which the followers of an author are cut, by a hash of their ids
NODES = 1024  # processes that can draw ids at a time

_NOW = models.Func(function="clock_timestamp")


class UserId(models.TextField):  # type: ignore[type-arg]
    """An opaque id of a user, 1 to 255 characters. Bytes decide its order, in every database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["db_collation"] = "C"
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["db_collation"]
        return name, path, args, kwargs


class TransactionId(models.Field):  # type: ignore[type-arg]
    """PostgreSQL's id of the transaction that wrote the row (xid8)."""

    def db_type(self, connection: Any) -> str:
        return "xid8"


class Post(models.Model):
    """A post. Ids are those of feeds/ids.py. One that is deleted stays as a row with empty content;
    when its author is erased, with an empty author too."""

    id = models.BigIntegerField(primary_key=True)
    author_id = UserId()
    content = models.TextField()
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "posts"
        indexes = [
            models.Index(
                fields=["author_id", "id"],
                name="posts_of_author",
                condition=models.Q(deleted_at=None),
            ),
            # What is left of an author who is erased.
            models.Index(
                fields=["author_id", "id"],
                name="posts_deleted",
                condition=models.Q(deleted_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Follow(models.Model):
    """Who follows whom. A change of a pair locks its row, so the row stays after the follow has
    ended, until its clean-up is done.

    number      a new one each time the follow begins; entries name it
    backfilled  whether the author's older posts are among the follower's entries; merged until then
    """

    pk = models.CompositePrimaryKey("follower_id", "followee_id")
    follower_id = UserId()
    followee_id = UserId()
    number = models.BigIntegerField(
        db_default=models.Func(models.Value("feeds_follow_numbers"), function="nextval")
    )
    active = models.BooleanField(db_default=True)
    backfilled = models.BooleanField(db_default=False)
    bucket = models.GeneratedField(
        expression=models.Func(
            "follower_id", template=f"(hashtext(%(expressions)s) & {BUCKETS - 1})"
        ),
        output_field=models.SmallIntegerField(),
        db_persist=True,
    )
    at = models.DateTimeField(db_default=_NOW)

    class Meta:
        db_table = "follows"
        indexes = [
            models.Index(
                fields=["followee_id", "bucket", "follower_id"],
                name="follows_of_followee",
                condition=models.Q(active=True),
            ),
            models.Index(
                fields=["follower_id", "followee_id"],
                name="follows_of_follower",
                condition=models.Q(active=True),
            ),
            # Few: those that are merged at read, for a moment.
            models.Index(
                fields=["follower_id", "followee_id"],
                name="follows_not_backfilled",
                condition=models.Q(active=True, backfilled=False),
            ),
            # Few: they go when their clean-up is done.
            models.Index(
                fields=["followee_id", "follower_id"],
                name="follows_ended",
                condition=models.Q(active=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.follower_id} -> {self.followee_id}"


class FollowListing(models.Model):
    """The rows of `Follow` through a view with one column as key, which the admin asks of a model.
    No user id has the slash that is between the two."""

    id = models.TextField(primary_key=True)
    follower_id = models.TextField()
    followee_id = models.TextField()
    number = models.BigIntegerField()
    active = models.BooleanField()
    backfilled = models.BooleanField()
    at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "follows_listing"
        verbose_name = "follow"

    def __str__(self) -> str:
        return f"{self.follower_id} -> {self.followee_id}"


class FeedEntry(models.Model):
    """A post in the feed of a follower of its author. His own posts are never entries of a user."""

    pk = models.CompositePrimaryKey("user_id", "post_id")
    user_id = UserId()
    post_id = models.BigIntegerField()
    author_id = UserId()
    follow_number = models.BigIntegerField()

    class Meta:
        db_table = "feed_entries"


class FeedWindow(models.Model):
    """Down to which post the entries of a user are complete; no row: down to the first."""

    user_id = UserId(primary_key=True)
    floor = models.BigIntegerField()

    class Meta:
        db_table = "feed_windows"
        indexes = [models.Index(fields=["floor"], name="feed_windows_by_floor")]


class AuthorMode(models.TextChoices):
    """How the posts of an author come into feeds: as entries; merged at read; merged at read while
    entries are written again."""

    STORED = "stored"
    MERGED = "merged"
    STORING = "storing"


class FeedAuthor(models.Model):
    """How many follow an author, as of the events applied so far, and what follows from it."""

    author_id = UserId(primary_key=True)
    followers = models.BigIntegerField(db_default=0)
    mode = models.TextField(choices=AuthorMode, db_default=AuthorMode.STORED)

    class Meta:
        db_table = "feed_authors"
        indexes = [
            # Few: every page that is read from here asks for them.
            models.Index(
                fields=["author_id"],
                name="feed_authors_merged",
                condition=~models.Q(mode="stored"),
            )
        ]


class SliceKind(models.TextChoices):
    """What a slice does to the entries of its followers; `stored` ends the change of an author's
    mode, once all of `storing` are done."""

    POST = "post"
    DELETE = "delete"
    BACKFILL = "backfill"
    CLEANUP = "cleanup"
    STORING = "storing"
    STORED = "stored"


class FeedSlice(models.Model):
    """A piece of fan-out: what happened, and the followers in buckets `bucket_from` to before
    `bucket_to`. `due_at` and `begun` are its lease.

    size        followers that it was cut for, about
    written_at  its entries are committed, its caches are still to confirm
    failed_at   it was tried too often by itself and waits for somebody
    """

    id = models.BigAutoField(primary_key=True)
    kind = models.TextField(choices=SliceKind)
    author_id = UserId()
    post_id = models.BigIntegerField(null=True)
    follower_id = UserId(null=True)
    follow_number = models.BigIntegerField(null=True)
    bucket_from = models.SmallIntegerField(db_default=0)
    bucket_to = models.SmallIntegerField(db_default=BUCKETS)
    size = models.IntegerField(db_default=1)
    due_at = models.DateTimeField(db_default=_NOW)
    begun = models.IntegerField(db_default=0)
    tries = models.IntegerField(db_default=0)
    failed_at = models.DateTimeField(null=True)
    error = models.TextField(db_default="")
    written_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=_NOW)

    class Meta:
        db_table = "feed_slices"
        indexes = [
            # By kind: a million backfills of an import must not lie in front of a post.
            models.Index(
                fields=["kind", "due_at"],
                name="feed_slices_due",
                condition=models.Q(failed_at=None),
            ),
            models.Index(
                fields=["id"],
                name="feed_slices_failed",
                condition=models.Q(failed_at__isnull=False),
            ),
            # The journey of a post.
            models.Index(
                fields=["post_id"],
                name="feed_slices_of_post",
                condition=models.Q(post_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.author_id}"


class ChangeKind(models.TextChoices):
    """What can make a page wrong that was right."""

    DELETE = "delete"
    FOLLOW = "follow"
    UNFOLLOW = "unfollow"
    MODE = "mode"
    # One row, whose `xid` says below which transaction changes may have been pruned.
    PRUNED = "pruned"


class FeedChange(models.Model):
    """One row in the transaction of each deletion, follow, unfollow and change of mode, for those who
    ask what has committed since their last snapshot."""

    id = models.BigAutoField(primary_key=True)
    xid = TransactionId(db_default=models.Func(function="pg_current_xact_id"))
    kind = models.TextField(choices=ChangeKind)
    follower_id = UserId(null=True)
    author_id = UserId()
    post_id = models.BigIntegerField(null=True)
    at = models.DateTimeField(db_default=_NOW)

    class Meta:
        db_table = "feed_changes"
        indexes = [models.Index(fields=["xid"], name="feed_changes_by_xid")]


class LogKind(models.TextChoices):
    """What the live feed sends."""

    POST = "post"
    DELETE = "delete"


class FeedLog(models.Model):
    """One row in the transaction of each post and deletion. `seq` is given after COMMIT, in one order
    for all."""

    id = models.BigAutoField(primary_key=True)
    seq = models.BigIntegerField(null=True, unique=True)
    kind = models.TextField(choices=LogKind)
    post_id = models.BigIntegerField()
    author_id = UserId()
    at = models.DateTimeField(db_default=_NOW)

    class Meta:
        db_table = "feed_log"
        indexes = [
            models.Index(fields=["id"], name="feed_log_unnumbered", condition=models.Q(seq=None))
        ]


class FeedNode(models.Model):
    """The process that makes ids with this node number, and the millisecond up to which it
    may."""

    node = models.SmallIntegerField(primary_key=True)
    owner = models.TextField()
    until = models.DateTimeField()
    highest_ms = models.BigIntegerField()

    class Meta:
        db_table = "feed_nodes"
