"""Feeds from POST to the page of a follower, with real processes: a follow, posts, a worker that is killed."""

from __future__ import annotations

from io import StringIO

import pytest
import redis
from django.conf import settings
from django.core.management import call_command

from devtools.testing.pipeline import settles
from devtools.testing.processes import running_together, spec_of
from devtools.testing.web import Web
from feeds.models import FeedEntry, FeedSlice, Follow
from outbox.models import DeadLetter

pytestmark = pytest.mark.usefixtures("pipeline")

SETTLES = 60.0
FANS = [f"fan{number}" for number in range(3)]


def posted(web: Web) -> int:
    answer = web.post("/posts", {"author_id": "ada", "content": "Hello, world."})
    assert answer.status == 202, answer.body
    return int(answer.json["post_id"])


def shown(web: Web, reader: str) -> list[int]:
    return list(web.get(f"/feeds/{reader}").json["post_ids"])


def is_backfilled() -> bool:
    """From here on a post comes into these feeds by fan-out alone."""
    return Follow.objects.filter(backfilled=True).count() == len(FANS)


def stored() -> set[tuple[str, int]]:
    return set(FeedEntry.objects.values_list("user_id", "post_id"))


def test_from_the_request_to_the_page(web: Web) -> None:
    with redis.Redis.from_url(settings.FEED_CACHE_URL) as server:
        server.flushdb()
    processes = [spec_of(name) for name in ("worker-outbox", "worker-effects", "bridge", "beat")]
    with running_together(processes) as started:
        for fan in FANS:
            pair = {"follower_id": fan, "followee_id": "ada"}
            assert web.post("/follow", pair).status == 200
        first = posted(web)
        assert shown(web, FANS[0]) == [first]  # merged, or stored already
        assert settles(is_backfilled, within=SETTLES)
        assert shown(web, FANS[0]) == [first]
        second = posted(web)
        assert settles(lambda: shown(web, FANS[0]) == [second, first], within=SETTLES)

        started[1].kill()  # nothing is applied
        third = posted(web)
        assert web.request("DELETE", f"/posts/{first}").status == 200
        assert shown(web, FANS[0]) == [second]
        with running_together([spec_of("worker-effects")]):
            assert settles(
                lambda: all(shown(web, fan) == [third, second] for fan in FANS), within=SETTLES
            )
            kept = {(fan, post_id) for fan in FANS for post_id in (second, third)}
            assert settles(lambda: stored() == kept, within=SETTLES)
            assert settles(lambda: not FeedSlice.objects.exists(), within=SETTLES)
            assert web.get("/users/ada/followers").json["count"] == len(FANS)
    assert stored() == kept
    assert not DeadLetter.objects.exists()
    out = StringIO()
    call_command("check_feeds", stdout=out)
    assert "All feeds equal the truth" in out.getvalue()
