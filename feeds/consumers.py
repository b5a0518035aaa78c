"""/ws/feeds/{user_id}: the posts of a user's feed as they come, and their deletions."""

from __future__ import annotations

from collections.abc import Mapping

from feeds.events import LIVE_FEEDS, is_user_id
from restapi.converters import is_path_text
from restapi.sockets import SocketRefused
from restapi.status_consumer import StatusConsumer

__all__ = ["LiveFeed"]


class LiveFeed(StatusConsumer):
    """Sends a user's own posts and those of all users that the user follows, new follows included."""

    log = LIVE_FEEDS

    def subject(self, given: Mapping[str, str]) -> str:
        user_id: str = self.scope["url_route"]["kwargs"]["user_id"]
        if not is_path_text(user_id, self.scope):
            raise SocketRefused(400, "The user id is not valid.", [("user_id", "Must be UTF-8.")])
        if not is_user_id(user_id):
            message = (
                "Must have 1 to 255 characters, no control characters, no /, and not be . or .."
            )
            raise SocketRefused(400, "The user id is not valid.", [("user_id", message)])
        return user_id
