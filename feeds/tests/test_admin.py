"""The feeds' pages in the admin: what they tell, that they change nothing, what they cost."""

from __future__ import annotations

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.utils import timezone

from devtools.testing.posts import create_posts, follow, new_post
from feeds import admin
from feeds.events import events_of_post
from feeds.models import FeedSlice, Follow, Post
from feeds.services import Pair, delete_posts, unfollow
from outbox.tests.admin_pages import COUNT, assert_every_page_is_bounded, fill, log_in, visit

pytestmark = pytest.mark.django_db

POSTS = "/admin/feeds/post/"
FOLLOWS = "/admin/feeds/followlisting/"
SLICES = "/admin/feeds/feedslice/"
EVENTS = "/admin/outbox/outboxevent/"


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many posts, follows and slices as a page may touch; star has the older half of the
    posts, and all followers."""
    fill(
        monkeypatch,
        "posts, follows, feed_slices, event_outbox",
        "INSERT INTO posts (id, author_id, content, created_at)"
        f" SELECT i, CASE WHEN i <= {COUNT // 2} THEN 'star' ELSE 'a' || i END, 'text', now()"
        f" FROM generate_series(1, {COUNT}) i",
        "INSERT INTO follows (follower_id, followee_id)"
        f" SELECT 'f' || i, 'star' FROM generate_series(1, {COUNT}) i",
        "INSERT INTO feed_slices (kind, author_id, post_id, failed_at)"
        " SELECT 'post', 'star', i, CASE WHEN i % 2 = 0 THEN now() END"
        f" FROM generate_series(1, {COUNT}) i",
    )
    monkeypatch.setattr(admin, "FOLLOWERS_FOUND", 20)
    monkeypatch.setattr(admin, "POSTS_FOUND", 20)
    monkeypatch.setattr(admin, "POSTS_OF_AUTHOR", 5)


@pytest.mark.usefixtures("many")
def test_no_page_touches_more_rows_than_it_may(operator: Client) -> None:
    piece = FeedSlice.objects.get(post_id=76)
    pages = [
        *(POSTS, f"{POSTS}?p=20", f"{POSTS}?o=4", f"{POSTS}?q=15077", f"{POSTS}?q=star"),
        *(f"{POSTS}?q=nonsense", f"{POSTS}?q=99999999999999999999", f"{POSTS}15077/change/"),
        *(FOLLOWS, f"{FOLLOWS}?p=20", f"{FOLLOWS}?q=f77", f"{FOLLOWS}?q=star"),
        *(
            f"{FOLLOWS}?q=f77/star",
            f"{FOLLOWS}?q=nonsense",
            f"{FOLLOWS}{quote('f77/star')}/change/",
        ),
        *(SLICES, f"{SLICES}?p=20", f"{SLICES}?failed=yes", f"{SLICES}?q=76", f"{SLICES}?q=x"),
        *(f"{SLICES}{piece.pk}/change/", f"{EVENTS}?q=77", f"{EVENTS}?q=star"),
    ]
    assert_every_page_is_bounded(operator, pages)


@pytest.mark.usefixtures("many")
def test_one_row_is_found_by_indexes_alone(operator: Client) -> None:
    for page, shown in (
        (f"{POSTS}?q=15077", "a15077"),
        (f"{POSTS}15077/change/", "a15077"),
        (f"{FOLLOWS}?q=f77/star", "f77"),
        (f"{FOLLOWS}{quote('f77/star')}/change/", "f77"),
        (f"{SLICES}?q=76", "star"),
    ):
        seen = visit(operator, page)
        assert (shown in seen.text, 0 < seen.rows <= 4) == (True, True), page


@pytest.mark.parametrize(
    "page", [f"{POSTS}?content=x", f"{FOLLOWS}?active=1", f"{SLICES}?error=x"], ids=range(3)
)
def test_columns_without_an_index_cannot_be_asked_for(operator: Client, page: str) -> None:
    assert operator.get(page).status_code == 400


def test_a_post_leads_to_its_events(operator: Client) -> None:
    [post_id, other] = create_posts([new_post("ada", "<b>hello</b>"), new_post("bob", "else")])
    delete_posts([post_id])
    text = visit(operator, f"{POSTS}{post_id}/change/").text
    for event_id in events_of_post(post_id):
        link = f"{EVENTS}?q={event_id}"
        assert f'href="{link}"' in text
        assert event_id in visit(operator, link).text
    assert events_of_post(other)[1] not in visit(operator, f"{POSTS}{other}/change/").text
    assert "&lt;b&gt;" not in visit(operator, POSTS).text  # its content went with it

    for text_ in (str(post_id), "bob"):
        seen = visit(operator, f"{EVENTS}?q={text_}").text
        assert (events_of_post(post_id)[0] in seen) is (text_ != "bob")
        assert (events_of_post(other)[0] in seen) is (text_ == "bob")


def test_of_an_author_with_many_posts_the_page_says_what_is_left_out(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "POSTS_OF_AUTHOR", 1)
    create_posts([new_post("ada", "1")])
    assert "newest 1 posts" not in visit(operator, f"{EVENTS}?q=ada").text
    create_posts([new_post("ada", "2")])
    assert "only the events of the newest 1 posts" in visit(operator, f"{EVENTS}?q=ada").text


def test_the_newest_posts_of_an_author_are_found(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_posts([new_post("ada", f"post {number}") for number in range(3)])
    create_posts([new_post("adb", "of another")])
    seen = visit(operator, f"{POSTS}?q=ada").text
    assert ("3 results" in seen, "of another" in seen, "More than" in seen) == (True, False, False)
    monkeypatch.setattr(admin, "POSTS_FOUND", 2)
    seen = visit(operator, f"{POSTS}?q=ada").text
    assert ("post 0" in seen, "post 1" in seen, "More than 2" in seen) == (False, True, True)


def test_follows_are_found_from_both_sides(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow([Pair("grace", "ada"), Pair("bob", "ada"), Pair("bob", "grace")])
    unfollow([Pair("bob", "grace")])
    seen = visit(operator, f"{FOLLOWS}?q=bob").text
    assert "2 results" in seen
    seen = visit(operator, f"{FOLLOWS}?q=ada").text
    assert ("grace" in seen, "bob" in seen, "2 results" in seen) == (True, True, True)
    assert "1 result " in visit(operator, f"{FOLLOWS}?q=bob/grace").text
    monkeypatch.setattr(admin, "FOLLOWERS_FOUND", 1)
    assert "More than 1 follow this user" in visit(operator, f"{FOLLOWS}?q=ada").text
    text = visit(operator, f"{FOLLOWS}{quote('bob/grace')}/change/").text
    assert ("bob" in text, "no" in text) == (True, True)


def test_failed_slices_are_listed_alone(operator: Client) -> None:
    FeedSlice.objects.create(kind="post", author_id="waits", post_id=2)
    FeedSlice.objects.create(
        kind="post", author_id="fails", post_id=4, failed_at=timezone.now(), error="<oops>", tries=5
    )
    seen = visit(operator, SLICES).text
    assert ("waits" in seen, "fails" in seen, "&lt;oops&gt;" in seen) == (True, True, True)
    seen = visit(operator, f"{SLICES}?failed=yes").text
    assert ("waits" in seen, "fails" in seen) == (False, True)


def test_what_is_no_id_gets_an_answer(operator: Client) -> None:
    for page in (POSTS, FOLLOWS, SLICES):
        assert "Nothing here has the id “x”." in visit(operator, f"{page}?q=x").text
        assert operator.get(f"{page}nonsense/change/").status_code == 302


def test_nothing_can_be_changed(operator: Client) -> None:
    [post_id] = create_posts([new_post("ada", "hello")])
    follow([Pair("grace", "ada")])
    piece = FeedSlice.objects.create(kind="post", author_id="ada", post_id=post_id)
    for page, key in ((POSTS, post_id), (FOLLOWS, quote("grace/ada")), (SLICES, piece.pk)):
        assert operator.get(f"{page}add/").status_code == 403
        assert operator.get(f"{page}{key}/delete/").status_code == 403
        assert operator.post(f"{page}{key}/change/", {"author_id": "thief"}).status_code == 403
    assert Post.objects.get().author_id == "ada"
    assert Follow.objects.get().active
