"""Dead letters and handlers in the admin: a preview first, then what the commands do."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client

from outbox.admin import dead_letters
from outbox.handlers import pause
from outbox.models import DeadLetter, DeadLetterAction, HandlerControl
from outbox.tests.admin_pages import log_in, visit
from outbox.tests.letters import HANDLER, Applied, chunk, create_positions, event, run, states

pytestmark = pytest.mark.django_db

LETTERS = "/admin/outbox/deadletter/"
HANDLERS = "/admin/outbox/handlercontrol/"


@pytest.fixture
def operator() -> Client:
    return log_in()


@pytest.fixture
def letters() -> list[int]:
    """A dead head, its follower, and the ids of both."""
    create_positions()
    run(Applied("bad"), chunk([event("bad"), event("after")]))
    DeadLetter.objects.filter(payload="bad").update(state=DeadLetter.State.DEAD)
    return list(DeadLetter.objects.order_by("id").values_list("id", flat=True))


def act(client: Client, action: str, *ids: object, path: str = LETTERS, **fields: str) -> str:
    data = {"action": action, "_selected_action": [str(each) for each in ids], **fields}
    return client.post(path, data, follow=True).content.decode()


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_a_preview_changes_nothing_and_names_the_followers(
    operator: Client, letters: list[int], action: str
) -> None:
    page = act(operator, action, letters[0])
    assert "1 followers are applied after them" in page
    assert f"Yes, {action}" in page
    assert states() == ["dead", "parked"]


def test_a_confirmed_replay_is_done_and_kept(operator: Client, letters: list[int]) -> None:
    assert "1 replayed." in act(operator, "replay", letters[0], confirmed="yes", note="mended")
    assert states() == ["retrying", "parked"]
    kept = DeadLetterAction.objects.get()
    assert (kept.letter_id, kept.action, kept.by, kept.note) == (
        letters[0],
        "replay",
        "operator",
        "mended",
    )
    page = visit(operator, f"{LETTERS}{letters[0]}/change/").text
    assert "replay by operator mended" in page


def test_a_confirmed_discard_frees_the_follower(operator: Client, letters: list[int]) -> None:
    for without in ({}, {"note": " "}):
        assert "Reason:" in act(operator, "discard", letters[0], confirmed="yes", **without)
        assert states() == ["dead", "parked"]
    act(operator, "discard", letters[0], confirmed="yes", note="garbage")
    assert states() == ["discarded", "retrying"]


@pytest.mark.parametrize("fields", [{}, {"confirmed": "yes", "note": "garbage"}])
def test_a_follower_without_its_head_is_refused(
    operator: Client, letters: list[int], fields: dict[str, str]
) -> None:
    assert "Name the head too" in act(operator, "discard", letters[1], **fields)
    assert states() == ["dead", "parked"]


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_letters_that_were_chosen_and_left_out_are_told(
    operator: Client, letters: list[int], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "left out" not in act(operator, action, *letters)
    monkeypatch.setattr(dead_letters, "LETTERS_AT_ONCE", 1)
    page = act(operator, action, *letters)
    assert "These 1 are" in page
    assert "1 of the selected letters are left out" in page
    monkeypatch.setattr(dead_letters, "COUNTED", 1)
    assert "0 or more of the selected letters" in act(operator, action, *letters)


def test_an_error_and_a_key_that_are_cut_off_say_so(operator: Client, letters: list[int]) -> None:
    DeadLetter.objects.filter(id=letters[0]).update(key="k" * 300, error="e" * 300)
    DeadLetter.objects.filter(id=letters[1]).update(key="l")
    for page in (visit(operator, LETTERS).text, act(operator, "replay", letters[0])):
        assert "e" * 119 + "…" in page
        assert "e" * 120 not in page


def test_a_long_history_says_that_it_is_not_all(
    operator: Client, letters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "ACTIONS_SHOWN", 2)
    page = f"{LETTERS}{letters[0]}/change/"
    for number in range(3):
        assert "there are older ones" not in visit(operator, page).text
        DeadLetterAction.objects.create(
            letter_id=letters[0], action="replay", by="me", note=f"time {number}"
        )
    text = visit(operator, page).text
    assert "The newest 2; there are older ones." in text
    assert "time 0" not in text
    assert text.index("time 1") < text.index("time 2")


@pytest.mark.usefixtures("permissions")
def test_who_may_only_look_cannot_act(client: Client, letters: list[int]) -> None:
    user = User.objects.create_user("looker", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_deadletter"))
    client.force_login(user)
    assert str(letters[0]) in client.get(LETTERS).content.decode()
    act(client, "replay", letters[0], confirmed="yes", note="mended")
    assert states() == ["dead", "parked"]


def test_no_page_touches_more_rows_than_it_shows(operator: Client, letters: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dead_letter (handler, event_id, topic, "partition", "offset", key, type,
                source, event_time, payload, traceparent, correlation_id, state, error)
            SELECT handler, md5(i::text)::uuid, topic, 0, i, 'k' || i, '', '', '', '', '', '',
                3 + i %% 2, ''
            FROM generate_series(1, 20000) i, dead_letter WHERE id = %s
            """,
            (letters[0],),
        )
        cursor.execute("ANALYZE dead_letter")
    wanted = DeadLetter.objects.get(key="k777").event_id
    for page, rows in (
        (f"{LETTERS}?open=dead", 10),
        (f"{LETTERS}?q={wanted}", 10),
        (LETTERS, 10_100),
    ):
        seen = visit(operator, page)
        assert seen.status == 200
        assert seen.rows <= rows, (page, seen.sql)
    assert ">bad<" not in visit(operator, LETTERS).text


def test_handlers_are_paused_with_a_reason_and_resumed(operator: Client) -> None:
    create_positions()
    pause.register_handlers([HANDLER])
    asked = act(operator, "pause", HANDLER, path=HANDLERS, confirmed="yes")
    assert "Reason:" in asked
    assert not HandlerControl.objects.get().paused
    act(operator, "pause", HANDLER, path=HANDLERS, confirmed="yes", note="a look")
    row = HandlerControl.objects.get()
    assert (row.paused, row.reason, row.changed_by) == (True, "a look", "operator")
    assert "Yes, resume" in act(operator, "resume", HANDLER, path=HANDLERS)
    act(operator, "resume", HANDLER, path=HANDLERS, confirmed="yes")
    assert HandlerControl.objects.get().paused
    act(operator, "resume", HANDLER, path=HANDLERS, confirmed="yes", note="mended")
    assert not HandlerControl.objects.get().paused
