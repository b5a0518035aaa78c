"""Acting on the page over real HTTP: who may, nothing without a form and a reason, once for each form."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from devtools.testing.pipeline import settles
from devtools.testing.web import Web
from notifications.delivery.channels import channel_statuses, pause_channel
from notifications.tests.samples import SMS, failed
from notifications.tests.sending import accept
from operations import runs
from operations.tests.acting import Operator
from operations.tests.conftest import TOKEN
from operations.tests.forms import fields_of, post, send
from operations.tests.people import staff
from outbox.handlers.pause import handler_statuses, pause_handler, register_handlers
from outbox.lanes.pause import lane_states
from outbox.models import DeadLetter, HandlerControl, OperatorAction
from outbox.tests.letters import HANDLER, Applied, chunk, create_positions, event, run, states

HANDLERS, LANES = "outbox.change_handlercontrol", "outbox.change_outboxlane"
CHANNELS = "notifications.change_channelcontrol"
LETTERS = ("outbox.view_deadletter", "outbox.change_deadletter")
SECRET = "pa55-w0rd-of-somebody"


@pytest.fixture(autouse=True)
def _rows(web: Web, permissions: None) -> None:
    register_handlers([HANDLER])


@pytest.fixture
def as_one_who_may(web: Web) -> Callable[..., Operator]:
    return lambda *permissions: Operator(web, staff("operator", *permissions))


def is_paused() -> bool:
    return handler_statuses([HANDLER])[0].paused


def kept() -> list[tuple[str, str, str, str, int]]:
    rows = OperatorAction.objects.order_by("id")
    return [(row.by, row.what, row.subject, row.why, row.done) for row in rows]


PAUSE = f"/ops/act/pause-handler?on={HANDLER}"
RESUME = f"/ops/act/resume-handler?on={HANDLER}"


def test_a_preview_says_what_it_would_do_and_does_nothing(
    as_one_who_may: Callable[..., Operator],
) -> None:
    page = as_one_who_may(HANDLERS).look(PAUSE)
    assert page.status == 200
    assert b"The handler applies nothing until it is resumed" in page.body
    assert page.header("cache-control") == "no-store"
    assert not is_paused()
    assert kept() == []


def test_a_pause_and_a_resume_are_done_and_kept(as_one_who_may: Callable[..., Operator]) -> None:
    operator = as_one_who_may(HANDLERS)
    answer = operator.act(PAUSE, "a <b>bad</b> release")
    assert answer.status == 302
    assert is_paused()
    assert handler_statuses([HANDLER])[0].reason == "a <b>bad</b> release"
    done = operator.look(answer.header("location"))
    assert b"a &lt;b&gt;bad&lt;/b&gt; release" in done.body
    assert b"done" in operator.look(f"{answer.header('location')}/live").body
    assert operator.act(RESUME, "mended").status == 302
    assert not is_paused()
    assert kept() == [
        ("operator", "pause", f"handler {HANDLER}", "a <b>bad</b> release", 1),
        ("operator", "resume", f"handler {HANDLER}", "mended", 1),
    ]


@pytest.mark.parametrize("why", ["", "   ", "\x00"])
def test_without_a_reason_nothing_is_done(
    as_one_who_may: Callable[..., Operator], why: str
) -> None:
    answer = as_one_who_may(HANDLERS).act(PAUSE, why)
    assert answer.status == 400
    assert b"Say why" in answer.body
    assert not is_paused()


def test_a_rate_that_is_no_number_is_refused_also_where_none_is_asked_for(
    as_one_who_may: Callable[..., Operator],
) -> None:
    answer = as_one_who_may(HANDLERS).act(PAUSE, rate="fast")
    assert answer.status == 400
    assert b"Choose one of the rates" in answer.body
    assert not is_paused()


def test_a_form_that_is_sent_twice_acts_once(as_one_who_may: Callable[..., Operator]) -> None:
    operator = as_one_who_may(HANDLERS)
    page = operator.look(PAUSE)
    first, second = (operator.confirm(page, PAUSE) for _ in range(2))
    assert first.status == second.status == 302
    assert first.header("location") == second.header("location")
    assert len(kept()) == 1
    operator.act(RESUME)
    third = operator.confirm(page, PAUSE)
    assert third.header("location") == first.header("location")
    assert not is_paused(), "an old form that is sent again pauses nothing again"


def test_two_copies_of_a_form_at_once_act_once(as_one_who_may: Callable[..., Operator]) -> None:
    operator = as_one_who_may(HANDLERS)
    page = operator.look(PAUSE)

    with ThreadPoolExecutor(2) as both, transaction.atomic():
        HandlerControl.objects.select_for_update().get(handler=HANDLER)
        copies = [both.submit(operator.confirm, page, PAUSE) for _ in range(2)]
        assert settles(lambda: waiting_for_a_lock() == 2)
    first, second = (copy.result() for copy in copies)
    assert first.status == second.status == 302
    assert first.header("location") == second.header("location")
    assert len(kept()) == 1


def waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return int(cursor.fetchone()[0])


def test_letters_of_an_app_ask_for_its_permission_too(
    web: Web, as_one_who_may: Callable[..., Operator]
) -> None:
    [id_] = failed(SMS)
    path = f"/ops/act/discard-letters?on={id_}"
    operator = as_one_who_may(*LETTERS)
    refused = operator.look(path)
    assert (refused.status, b"notifications.change_notification" in refused.body) == (403, True)
    other = Operator(web, staff("other", *LETTERS, "notifications.change_notification"))
    assert other.look(path).status == 200


@pytest.mark.parametrize("once", ["", "1", "nonsense"])
def test_a_form_without_its_number_is_given_back(
    as_one_who_may: Callable[..., Operator], once: str
) -> None:
    assert as_one_who_may(HANDLERS).act(PAUSE, once=once).status == 400
    assert not is_paused()


def test_without_the_token_of_the_form_nothing_is_done(
    as_one_who_may: Callable[..., Operator],
) -> None:
    operator = as_one_who_may(HANDLERS)
    form = urlencode({"once": str(uuid4()), "on": HANDLER, "why": "a look"})
    answer = send(operator.web, "/ops/act/pause-handler", form, operator.headers)
    assert answer.status == 403
    assert not is_paused()


@pytest.mark.parametrize(
    "path",
    [
        *(PAUSE, RESUME, "/ops/act/pause-lanes?on=3", "/ops/act/resume-lanes?on=3"),
        *("/ops/act/reset-breaker?on=log/sms", "/ops/act/replay-letters?on=1"),
        *("/ops/act/discard-letters?on=1", "/ops/act/replay-letter?on=1"),
        *("/ops/act/discard-letter?on=1", "/ops/act/stop-run?on=1"),
        *("/ops/act/pause-channel?on=sms", "/ops/act/resume-channel?on=sms"),
        *("/ops/act/replay-relay-letters?on=1", "/ops/act/discard-relay-letters?on=1"),
        *("/ops/act/replay-relay-letter?on=1", "/ops/act/discard-relay-letter?on=1"),
    ],
)
def test_who_only_reads_is_refused_each_action(web: Web, path: str) -> None:
    viewer = Operator(web, staff("viewer", "outbox.view_handlercontrol", "outbox.view_deadletter"))
    assert viewer.look(path).status == 403
    other = Operator(web, staff("other", HANDLERS, LANES, *LETTERS))
    page = other.look(PAUSE)  # for a token that holds
    name, _, on = path.partition("?")
    form = f"{on}&{urlencode({'once': str(uuid4()), 'why': 'a look'})}"
    assert post(web, page, name, form, viewer.headers).status == 403
    assert kept() == []


def test_a_method_that_acts_on_nothing_is_refused(as_one_who_may: Callable[..., Operator]) -> None:
    operator = as_one_who_may(HANDLERS)
    answer = operator.web.request("OPTIONS", PAUSE, headers=operator.headers)
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, POST")


def test_nobody_and_the_token_of_operators_act_on_nothing(web: Web) -> None:
    assert web.get(PAUSE).status == 302
    assert web.get(PAUSE).header("location").startswith("/admin/login/")
    assert web.get(PAUSE, Authorization=f"Bearer {TOKEN}").status == 403
    assert Operator(web, User.objects.create_user("customer")).look(PAUSE).status == 403


def test_who_may_no_longer_is_refused_at_once(as_one_who_may: Callable[..., Operator]) -> None:
    """Although a look is remembered for seconds."""
    operator = as_one_who_may(HANDLERS)
    page = operator.look(PAUSE)
    operator.user.user_permissions.clear()
    assert operator.confirm(page, PAUSE).status == 403
    assert not is_paused()


@pytest.mark.parametrize(
    "path",
    [
        *("/ops/act/nonsense", "/ops/act/pause-handler?on=nobody", "/ops/act/pause-handler"),
        *("/ops/act/pause-lanes?on=64", "/ops/act/pause-lanes?on=x", "/ops/act/pause-lanes"),
        *("/ops/act/reset-breaker?on=log/fax", "/ops/act/reset-breaker?on=", "/ops/done/77"),
        *("/ops/act/replay-letters?on=77", "/ops/act/replay-letters?on=x", "/ops/letters/77"),
        *("/ops/act/discard-letter?on=-1", "/ops/act/stop-run?on=77", f"/ops/letters/{'9' * 30}"),
        *("/ops/act/pause-channel?on=fax", "/ops/act/resume-channel", "/ops/relay-letters/x"),
        *("/ops/act/pause-channel?on=sms&on=push", "/ops/act/replay-relay-letters?on=x"),
        f"/ops/act/replay-letters?on={UUID(int=7)}",
    ],
)
def test_what_is_not_there_is_said(web: Web, path: str) -> None:
    superuser = Operator(web, User.objects.create_superuser("root"))
    assert superuser.look(path).status == 404


def test_what_is_done_already_is_said_and_has_no_button(
    as_one_who_may: Callable[..., Operator],
) -> None:
    operator = as_one_who_may(HANDLERS)
    page = operator.look(PAUSE)
    pause_handler(HANDLER, reason="first", by="ada")
    assert b"paused already, by ada: first" in operator.look(PAUSE).body
    assert b"csrfmiddlewaretoken" not in operator.look(PAUSE).body
    late = operator.confirm(page, PAUSE)
    assert late.status == 409
    assert handler_statuses([HANDLER])[0].reason == "first"


def test_lanes(as_one_who_may: Callable[..., Operator]) -> None:
    operator = as_one_who_may(LANES)
    assert b'value="63"' in operator.look("/ops/lanes").body
    page = operator.look("/ops/act/pause-lanes?on=3&on=17")
    assert b"Pause 2 lanes?" in page.body
    form = urlencode({**fields_of(page), "why": "a look"}).replace("on=17", "on=3&on=17")
    assert post(operator.web, page, "/ops/act/pause-lanes", form, operator.headers).status == 302
    assert [each.lane for each in lane_states(counted=0) if each.paused] == [3, 17]
    assert operator.act("/ops/act/resume-lanes?on=all").status == 302
    assert not any(each.paused for each in lane_states(counted=0))
    assert kept() == [
        ("operator", "pause", "lanes 3, 17", "a look", 2),
        ("operator", "resume", "lanes 0 to 63", "a look", 2),
    ]


def test_a_channel(as_one_who_may: Callable[..., Operator]) -> None:
    operator = as_one_who_may(CHANNELS)
    path = "/ops/act/pause-channel?on=sms"
    page = operator.look(path)
    assert b"A notification whose time is over meanwhile fails" in page.body
    assert not any(status.paused for status in channel_statuses())
    assert operator.confirm(page, path, " ").status == 400
    first, again = (operator.confirm(page, path, "a bad text") for _ in range(2))
    assert first.status == 302
    assert again.header("location") == first.header("location")
    assert [status.channel for status in channel_statuses() if status.paused] == ["sms"]
    assert b"paused already, by operator: a bad text" in operator.look(path).body
    assert settles(lambda: b'aria-label="resume sms"' in operator.look("/ops/live").body)
    assert b'aria-label="pause push"' in operator.look("/ops/live").body
    assert operator.act("/ops/act/resume-channel?on=sms", "mended").status == 302
    assert not any(status.paused for status in channel_statuses())
    assert kept() == [
        ("operator", "pause", "channel sms", "a bad text", 1),
        ("operator", "resume", "channel sms", "mended", 1),
    ]


def test_what_waits_for_a_paused_channel_says_so_and_until_when(
    as_one_who_may: Callable[..., Operator],
) -> None:
    operator = as_one_who_may("outbox.view_outboxevent")
    waits = accept()
    pause_channel("sms", reason="a bad text", by="ada")
    journey = operator.look(f"/ops/journey?id={waits.id}").body
    assert b"its channel is paused by ada: a bad text" in journey

    def shown() -> list[str]:
        return [each["name"] for each in operator.look("/ops/status.json").json["timeLeft"]]

    assert settles(lambda: "channel sms, paused" in shown())


def test_a_breaker_is_reset(web: Web) -> None:
    operator = Operator(web, staff("operator", "notifications.change_providerhold"))
    assert b"Reset log for sms?" in operator.look("/ops/act/reset-breaker?on=log/sms").body
    assert operator.act("/ops/act/reset-breaker?on=log/sms", "it is well").status == 302
    assert kept() == [("operator", "reset", "breaker log:sms", "it is well", 1)]


@pytest.fixture
def letters() -> list[int]:
    """Three dead heads with one error, each with a follower; the ids of the heads."""
    create_positions()
    poison = [f'{{"password": "{SECRET}", "n": {number}}}' for number in range(3)]
    events = [event(text, key=str(number)) for number, text in enumerate(poison)]
    run(Applied(*poison), chunk([*events, *(event("after", key=str(n)) for n in range(3))]))
    heads = DeadLetter.objects.filter(payload__in=poison)
    heads.update(state=DeadLetter.State.DEAD, next_attempt_at=None)
    return list(heads.order_by("id").values_list("id", flat=True))


def test_dead_letters_are_grouped_looked_at_and_replayed(web: Web, letters: list[int]) -> None:
    operator = Operator(web, staff("operator", *LETTERS))
    groups = operator.look("/ops/letters").body.decode()
    assert f"/ops/letters/{letters[-1]}" in groups
    assert ">3</td>" in groups
    one = operator.look(f"/ops/letters/{letters[0]}").body.decode()
    assert "&quot;n&quot;: 0" in one
    assert SECRET not in one
    assert "•••" in one

    path = f"/ops/act/replay-letters?on={letters[-1]}"
    page = operator.look(path)
    assert b"Replay 3 dead letters of record_sales?" in page.body
    assert b"3 followers are applied after them" in page.body
    assert SECRET.encode() not in page.body
    assert states() == ["dead"] * 3 + ["parked"] * 3
    assert operator.confirm(page, path, rate="17").status == 400
    answer = operator.confirm(page, path, "mended", rate="200")
    assert answer.status == 302
    assert operator.confirm(page, path, rate="200").header("location") == answer.header("location")
    under_way = operator.look(answer.header("location")).body.decode()
    assert "0 of 3" in under_way
    assert "/ops/act/stop-run" in under_way
    assert runs.work() == 3
    assert "3 of 3" in operator.look(answer.header("location")).body.decode()
    assert states() == ["retrying"] * 3 + ["parked"] * 3
    [(by, what, subject, why, count)] = kept()
    assert (by, what, why, count) == ("operator", "replay", "mended", 3)
    assert subject.startswith(f"dead letters of {HANDLER}, ")


def test_a_run_is_stopped(web: Web, letters: list[int]) -> None:
    operator = Operator(web, staff("operator", *LETTERS))
    begun = operator.act(f"/ops/act/discard-letters?on={letters[-1]}", rate="1")
    number = begun.header("location").rpartition("/")[2]
    assert runs.work() == 1
    path = f"/ops/act/stop-run?on={number}"
    assert b"1 of 3" in operator.look(path).body
    assert operator.act(path, "the wrong ones").status == 302
    assert runs.work() == 0
    assert states()[:3].count("discarded") == 1
    assert b"stopped by operator: the wrong ones" in operator.look(f"/ops/done/{number}").body
    assert b"This run has ended already." in operator.look(path).body
    assert [row[1] for row in kept()] == ["discard", "stop"]


@pytest.mark.parametrize(("action", "state"), [("replay", "retrying"), ("discard", "discarded")])
def test_one_letter(web: Web, letters: list[int], action: str, state: str) -> None:
    operator = Operator(web, staff("operator", *LETTERS))
    path = f"/ops/act/{action}-letter?on={letters[1]}"
    page = operator.look(path)
    assert operator.confirm(page, path).status == 302
    assert operator.confirm(page, path).status == 302
    assert states()[:3] == ["dead", state, "dead"]
    assert kept() == [("operator", action, f"dead letter {letters[1]} of {HANDLER}", "a look", 1)]


def test_a_follower_alone_is_refused(web: Web, letters: list[int]) -> None:
    operator = Operator(web, staff("operator", *LETTERS))
    follower = DeadLetter.objects.filter(payload="after").first()
    assert follower is not None
    answer = operator.act(f"/ops/act/discard-letter?on={follower.id}")
    assert answer.status == 409
    assert b"Name the head" in answer.body
    assert kept() == []
