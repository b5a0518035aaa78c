"""What users of feeds did and saw, and what of it cannot be. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["FeedHistory", "Kind", "SeenPage", "UserChange", "counted", "impossible"]


class Kind(StrEnum):
    """What a user did."""

    POST = "post"
    DELETE = "delete"
    FOLLOW = "follow"
    UNFOLLOW = "unfollow"


@dataclass(frozen=True, slots=True)
class UserChange:
    """One request. `begin` and `end` are moments of one monotonic clock. `done`: it was answered; else
    nobody knows whether it was. `post_id` 0: of a post that was not answered."""

    kind: Kind
    user: str
    begin: float
    end: float
    done: bool
    author: str = ""
    post_id: int = 0


@dataclass(frozen=True, slots=True)
class SeenPage:
    """The newest page of a feed; `whole`: there is nothing older."""

    user: str
    begin: float
    end: float
    ids: tuple[int, ...]
    whole: bool
    hit: bool = False


@dataclass(slots=True)
class FeedHistory:
    """All of a run. The changes of one pair, and of one post, are made one after the other."""

    changes: list[UserChange] = field(default_factory=list)
    pages: list[SeenPage] = field(default_factory=list)

    def done(self, kind: Kind) -> list[UserChange]:
        """Those that were answered."""
        return [change for change in self.changes if change.kind is kind and change.done]


def impossible(history: FeedHistory) -> Iterator[str]:
    """Pages that show what cannot have been true while they were read, or leave out what must have
    been: the first promise about feeds. What the fan-out owes is not asked for."""
    known = _Known(history.changes)
    for page in history.pages:
        if list(page.ids) != sorted(set(page.ids), reverse=True):
            yield f"{_name(page)} is not in order, or has a post twice"
        yield from _shown(page, known)
        yield from _left_out(page, known)


class _Known:
    """The changes, so that pages can be asked about."""

    def __init__(self, changes: Sequence[UserChange]) -> None:
        self.posts: dict[int, UserChange] = {}
        self.deletions: dict[int, UserChange] = {}
        self.of_author: dict[str, list[UserChange]] = defaultdict(list)
        self.pairs: dict[tuple[str, str], list[UserChange]] = defaultdict(list)
        self.follows_of: dict[str, set[str]] = defaultdict(set)
        self.unanswered: dict[
            str, float
        ] = {}  # author -> when the first post without an answer began
        for change in sorted(changes, key=lambda change: change.begin):
            self._note(change)

    def _note(self, change: UserChange) -> None:
        match change.kind:
            case Kind.POST if change.post_id:
                self.posts[change.post_id] = change
                self.of_author[change.user].append(change)
            case Kind.POST:
                self.unanswered.setdefault(change.user, change.begin)
            case Kind.DELETE:
                self.deletions.setdefault(change.post_id, change)
                if change.done and not self.deletions[change.post_id].done:
                    self.deletions[change.post_id] = change
            case Kind.FOLLOW | Kind.UNFOLLOW:
                self.pairs[change.user, change.author].append(change)
                self.follows_of[change.user].add(change.author)

    def certain(self, user: str, author: str, page: SeenPage) -> UserChange | None:
        """The change that decides whether the user followed while the page was read; None: it is not
        certain, or never was one."""
        last: UserChange | None = None
        for change in self.pairs.get((user, author), ()):
            if change.begin >= page.end:
                break
            if change.end > page.begin:
                return None
            last = change if change.done else None
        return last

    def may_follow(self, user: str, author: str, page: SeenPage) -> bool:
        """Whether it is possible that the user followed at some moment of the reading."""
        before = [each for each in self.pairs.get((user, author), ()) if each.begin < page.end]
        decided = self.certain(user, author, page)
        return bool(before) if decided is None else decided.kind is Kind.FOLLOW


def _shown(page: SeenPage, known: _Known) -> Iterator[str]:
    for post_id in page.ids:
        post = known.posts.get(post_id)
        if post is None:
            authors = {page.user, *known.follows_of[page.user]}
            if not any(known.unanswered.get(author, page.end) < page.end for author in authors):
                yield f"{_name(page)} has post {post_id}, which nobody wrote"
            continue
        gone = known.deletions.get(post_id)
        if post.begin > page.end:
            yield f"{_name(page)} has post {post_id} before it was written"
        elif gone is not None and gone.done and gone.end < page.begin:
            yield f"{_name(page)} has post {post_id}, which was deleted before"
        elif post.user != page.user and not known.may_follow(page.user, post.user, page):
            yield f"{_name(page)} has post {post_id} of {post.user}, who is not followed"


def _left_out(page: SeenPage, known: _Known) -> Iterator[str]:
    """Posts that were answered before the follow was asked for: they need no fan-out."""
    ids = set(page.ids)
    oldest = 0 if page.whole else min(ids, default=0)
    for author in known.follows_of[page.user]:
        follow = known.certain(page.user, author, page)
        if follow is None or follow.kind is not Kind.FOLLOW:
            continue
        for post in known.of_author[author]:
            gone = known.deletions.get(post.post_id)
            is_due = post.end < follow.begin and (gone is None or gone.begin > page.end)
            if is_due and post.post_id > oldest and post.post_id not in ids:
                yield f"{_name(page)} lacks post {post.post_id} of {author}, followed since"


def _name(page: SeenPage) -> str:
    return f"a page of {page.user}{' from the cache' if page.hit else ''}"


def counted(changes: Sequence[UserChange]) -> Mapping[Kind, int]:
    """How many of each kind were answered."""
    return {kind: sum(each.kind is kind and each.done for each in changes) for kind in Kind}
