"""Posts and follows as the API shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from feeds.queries import PostsPage, UsersPage

__all__ = ["posts", "users"]


def posts(author_id: str, page: PostsPage) -> dict[str, Any]:
    return {
        "author_id": author_id,
        "posts": [msgspec.Raw(words) for words in page.posts],
        "next_before": page.next_before,
    }


def users(user_id: str, page: UsersPage) -> dict[str, Any]:
    """The users that a user follows, or the followers of a user."""
    return {
        "user_id": user_id,
        "count": page.in_all,
        "users": page.users,
        "next_cursor": page.next,
    }
