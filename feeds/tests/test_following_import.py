"""A file of follows: all of it or nothing, each new one with its event, again without harm."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from devtools.testing.posts import follow
from feeds.events import decode_follow_event
from feeds.following_import import BadFile, count_follows, import_follows
from feeds.models import FeedAuthor, FeedChange, Follow
from feeds.services import Pair
from feeds.tests.stage import entries, post, settle, shown
from outbox.models import OutboxEvent


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "follows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def active() -> set[tuple[str, str]]:
    return set(Follow.objects.filter(active=True).values_list("follower_id", "followee_id"))


@pytest.mark.django_db(transaction=True)
def test_pieces_with_their_events_and_again_nothing(tmp_path: Path) -> None:
    follow([Pair("a", "b")])
    path = written(tmp_path, 'follower_id,followee_id\na,b\na,c\n\n"x, y","say ""é"""\na,c\nb,a\n')
    out = StringIO()
    call_command("import_follows", str(path), stdout=out)
    assert "5 of 5 lines, 3 new follows" in out.getvalue()
    pairs = {("a", "b"), ("a", "c"), ("x, y", 'say "é"'), ("b", "a")}
    assert active() == pairs
    published = [decode_follow_event(e.payload) for e in OutboxEvent.objects.order_by("id")]
    assert {(e.payload.follower_id, e.payload.followee_id) for e in published} == pairs
    numbers = dict(Follow.objects.values_list("follower_id", "number"))
    assert all(e.payload.number == numbers[e.key] for e in published if e.key != "a")
    assert FeedChange.objects.filter(kind="follow").count() == 4
    assert not Follow.objects.filter(backfilled=True).exists()  # merged at read until then

    before = OutboxEvent.objects.count()
    assert import_follows(path, piece=1).new == 0
    assert OutboxEvent.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_feeds_have_the_posts_at_once_and_when_it_is_applied(
    tmp_path: Path, no_cached_feeds: None
) -> None:
    made = [post("bob"), post("bob")][::-1]
    call_command("import_follows", str(written(tmp_path, "ann,bob\n")), stdout=StringIO())
    assert shown("ann") == made
    assert entries("ann") == {}
    settle()
    assert list(entries("ann")) == shown("ann") == made
    assert FeedAuthor.objects.get(author_id="bob").followers == 1


@pytest.mark.django_db(transaction=True)
def test_a_crash_keeps_the_pieces_before_it(tmp_path: Path) -> None:
    path = written(tmp_path, "".join(f"f{number},ada\n" for number in range(10)))

    def crash(imported: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_follows(path, piece=4, on_piece=crash)
    assert len(active()) == OutboxEvent.objects.count() == 4
    assert import_follows(path, piece=4).new == 6
    assert len(active()) == OutboxEvent.objects.count() == 10


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a", "line 2: has 1 fields"),
        ("a,b,c", "line 2: has 3 fields"),
        ("a,a", "line 2: a user cannot follow themselves"),
        ("a,b/c", "line 2: 'b/c' is not a user id"),
        ("a,", "line 2: '' is not a user id"),
        ("..,b", "line 2: '..' is not a user id"),
        ("a,b\0", "line 2: "),
        (f"a,{'x' * 256}", "line 2: 'xxx"),
        ('a,"b', "line "),
    ],
    ids=range(9),
)
@pytest.mark.django_db
def test_one_bad_line_and_nothing_is_stored(tmp_path: Path, line: str, complaint: str) -> None:
    path = written(tmp_path, f"u,v\n{line}\n")
    with pytest.raises(BadFile, match=f"^{complaint}"):
        count_follows(path)
    err = StringIO()
    with pytest.raises(CommandError, match="was imported: some lines are invalid"):
        call_command("import_follows", str(path), stderr=err)
    assert complaint in err.getvalue()
    assert active() == set()


@pytest.mark.django_db
def test_what_is_no_text_or_no_file(tmp_path: Path) -> None:
    path = tmp_path / "follows.csv"
    path.write_bytes(b"a,b\n\xff,c\n")
    with pytest.raises(BadFile, match="utf-8"):
        count_follows(path)
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_follows", str(tmp_path / "nothing.csv"))
    path.write_text("")
    out = StringIO()
    call_command("import_follows", str(path), stdout=out)
    assert "no follows" in out.getvalue()


@pytest.mark.django_db
def test_what_can_be_read_only_once() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"a,b\nc,d\n")
        os.close(writing)
        with pytest.raises(CommandError, match="2 lines when it was checked, and 0 when"):
            call_command("import_follows", f"/dev/fd/{reading}", stdout=StringIO())
    finally:
        os.close(reading)
    assert active() == set()
