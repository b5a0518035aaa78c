"""Dead letters and handlers in the admin: a preview first, then what the commands do."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client

from outbox import control
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
    assert "1 followers go on after them" in page
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
    act(operator, "discard", letters[0], confirmed="yes")
    assert states() == ["discarded", "retrying"]


@pytest.mark.parametrize("fields", [{}, {"confirmed": "yes"}])
def test_a_follower_without_its_head_is_refused(
    operator: Client, letters: list[int], fields: dict[str, str]
) -> None:
    assert "Name the head too" in act(operator, "discard", letters[1], **fields)
    assert states() == ["dead", "parked"]


@pytest.mark.usefixtures("permissions")
def test_who_may_only_look_cannot_act(client: Client, letters: list[int]) -> None:
    user = User.objects.create_user("looker", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_deadletter"))
    client.force_login(user)
    assert str(letters[0]) in client.get(LETTERS).content.decode()
    act(client, "replay", letters[0], confirmed="yes")
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
    control.register_handlers([HANDLER])
    asked = act(operator, "pause", HANDLER, path=HANDLERS, confirmed="yes")
    assert "Reason:" in asked
    assert not HandlerControl.objects.get().paused
    act(operator, "pause", HANDLER, path=HANDLERS, confirmed="yes", note="a look")
    row = HandlerControl.objects.get()
    assert (row.paused, row.reason, row.changed_by) == (True, "a look", "operator")
    assert "Yes, resume" in act(operator, "resume", HANDLER, path=HANDLERS)
    act(operator, "resume", HANDLER, path=HANDLERS, confirmed="yes")
    assert not HandlerControl.objects.get().paused
