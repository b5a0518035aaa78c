"""Dead letters of the relay on the page: grouped by reason, looked at without secrets, replayed and discarded
at a rate, by who may and for a reason; against a real RabbitMQ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from devtools.relay import broker
from devtools.relay.messages import Message, numbered
from devtools.testing.installed import needs_rabbitmq
from devtools.testing.processes import free_port
from devtools.testing.relay import a_policy, relaying, settled, until, waiting_letters
from devtools.testing.web import Web, web_process
from operations import relay_letters, runs
from operations.action import ActionRequest
from operations.journey import search
from operations.relay_letters import RelayGroup
from operations.tests.acting import Operator
from operations.tests.people import staff
from outbox.models import OperatorAction
from outbox.process.heartbeat import Heartbeat
from outbox.rabbitmq.policy import RelayPolicy

pytestmark = needs_rabbitmq

LETTERS = ("outbox.view_deadletter", "outbox.change_deadletter")
DAY_MS = 24 * 3600 * 1000
SECRET = "pa55-w0rd-of-the-relay"
NO_ID = [Message(b'{"payload": {"n": %d}}' % number) for number in range(3)]
TELLS = Message(
    b'{"event_id": 7, "payload": {"user": {"password": "%b"}}}' % SECRET.encode(),
    headers={"authorization": f"Bearer {SECRET}", "shop": "north"},
)
TORN = Message(b'{"event_id": "torn", "payload": {"api_key": "%b and more", ' % SECRET.encode())


@pytest.fixture(scope="module")
def policy(django_db_setup: None) -> RelayPolicy:
    return a_policy("page")


@pytest.fixture(scope="module")
def web_with_rabbitmq(policy: RelayPolicy) -> Iterator[Web]:
    with web_process(RABBITMQ_URL=policy.url, RABBITMQ_QUEUE=policy.queue) as started:
        yield started


@pytest.fixture
def web(
    web_with_rabbitmq: Web, policy: RelayPolicy, transactional_db: None, permissions: None
) -> Iterator[Web]:
    """Its database and both its queues empty."""
    a_policy("page")
    with of_settings(policy):
        yield web_with_rabbitmq


@contextmanager
def of_settings(policy: RelayPolicy) -> Iterator[None]:
    fields: dict[str, Any] = {"url": policy.url, "queue": policy.queue, "topic": policy.topic}
    with override_settings(RELAY=fields | {"dedupe_url": settings.REDIS_URL}):
        yield


@pytest.fixture
def operator(web: Web) -> Operator:
    return Operator(web, staff("operator", *LETTERS))


def refuse(policy: RelayPolicy, *messages: Message) -> list[RelayGroup]:
    """Have a relay make dead letters of them; their groups, the largest first."""
    broker.publish(policy.url, policy.queue, messages)
    with relaying(policy):
        until(lambda: waiting_letters(policy) == len(messages), "they are dead letters")
    return list(relay_letters.groups().groups)


def a_second_passes() -> None:
    """For the open runs."""
    for row in OperatorAction.objects.filter(ended_at=None):
        assert row.run is not None
        row.run["until"] -= 1.0
        row.save()


def work_to_the_end() -> int:
    done = runs.work()
    for _ in range(runs.SHORT_AT_MOST):
        a_second_passes()
        done += runs.work()
    return done


def kept() -> list[tuple[str, str, str, str, int]]:
    rows = OperatorAction.objects.order_by("id")
    return [(row.by, row.what, row.subject, row.why, row.done) for row in rows]


def test_grouped_by_reason_and_looked_at_without_secrets(
    operator: Operator, policy: RelayPolicy
) -> None:
    assert b"The relay has no dead letters" in operator.look("/ops/relay-letters").body
    groups = refuse(policy, *NO_ID, TELLS, TORN)
    assert [group.letters for group in groups] == [3, 1, 1]
    page = operator.look("/ops/relay-letters").body.decode()
    assert "5 in the queue" in page
    for group in groups:
        assert f"/ops/relay-letters/{group.like}" in page
        assert f"/ops/act/replay-relay-letters?on={group.like}" in page
        one = operator.look(f"/ops/relay-letters/{group.like}").body.decode()
        assert SECRET not in one
    shown = [operator.look(f"/ops/relay-letters/{group.like}").body.decode() for group in groups]
    assert any("•••" in text and "north" in text and "password" in text for text in shown)
    assert any("torn" in text and "and more" not in text for text in shown)
    assert waiting_letters(policy) == 5, "a look takes nothing"


def test_a_group_is_replayed_at_a_rate_and_no_other(
    operator: Operator, policy: RelayPolicy
) -> None:
    groups = refuse(policy, *NO_ID, TELLS)
    path = f"/ops/act/replay-relay-letters?on={groups[0].like}"
    page = operator.look(path)
    assert b"Replay 3 dead letters of the relay?" in page.body
    assert waiting_letters(policy) == 4, "a preview changes nothing"
    assert operator.confirm(page, path, " ").status == 400
    assert operator.confirm(page, path, rate="17").status == 400
    begun = operator.confirm(page, path, "mended", rate="1")
    assert begun.status == 302
    assert runs.work() == 1
    assert "1 of 3" in operator.look(begun.header("location")).body.decode()
    assert broker.depth(policy.url, policy.queue) == 1
    for _ in range(2):
        a_second_passes()
        assert runs.work() == 1
    assert work_to_the_end() == 0
    done = operator.look(begun.header("location")).body.decode()
    assert "3 of 3" in done
    assert "done" in done
    assert [json.loads(body) for body in broker.take_all(policy.url, policy.queue)] == [
        json.loads(message.body) for message in NO_ID
    ]
    assert waiting_letters(policy) == 1
    # The letters are gone by now; the form leads to what it did all the same.
    again = operator.confirm(page, path, "mended", rate="1")
    assert again.header("location") == begun.header("location")
    [(by, what, subject, why, count)] = kept()
    assert (by, what, why, count) == ("operator", "replay", "mended", 3)
    assert subject.startswith("dead letters of the relay, unreadable: ")


def test_what_fails_again_is_not_taken_again(operator: Operator, policy: RelayPolicy) -> None:
    [group] = refuse(policy, *NO_ID)
    path = f"/ops/act/replay-relay-letters?on={group.like}"
    begun = operator.act(path, rate="200")
    with relaying(policy):
        assert runs.work() == 3
        until(lambda: waiting_letters(policy) == 3, "they are dead letters again")
    assert work_to_the_end() == 0
    assert "3 of 3" in operator.look(begun.header("location")).body.decode()
    assert waiting_letters(policy) == 3


def test_a_run_is_stopped(operator: Operator, policy: RelayPolicy) -> None:
    [group] = refuse(policy, *NO_ID)
    begun = operator.act(f"/ops/act/discard-relay-letters?on={group.like}", rate="1")
    assert runs.work() == 1
    number = begun.header("location").rpartition("/")[2]
    assert operator.act(f"/ops/act/stop-run?on={number}", "the wrong ones").status == 302
    a_second_passes()
    assert runs.work() == 0
    assert waiting_letters(policy) == 2
    assert [row[1] for row in kept()] == ["discard", "stop"]


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_one_letter(operator: Operator, policy: RelayPolicy, action: str) -> None:
    groups = refuse(policy, *NO_ID, TELLS)
    [one] = [group for group in groups if group.letters == 1]
    path = f"/ops/act/{action}-relay-letter?on={one.like}"
    page = operator.look(path)
    assert SECRET.encode() not in page.body
    assert operator.confirm(page, path, "").status == 400
    first, again = (operator.confirm(page, path, "a look") for _ in range(2))
    assert first.status == 302
    assert again.header("location") == first.header("location")
    assert waiting_letters(policy) == 3
    taken = broker.take_all(policy.url, policy.queue)
    assert taken == ([TELLS.body] if action == "replay" else [])
    assert kept() == [("operator", action, f"dead letter {one.like} of the relay", "a look", 1)]
    assert operator.look(path).status == 404


def test_who_may_not_see_them(web: Web, policy: RelayPolicy) -> None:
    [group] = refuse(policy, TELLS)
    nobody = Operator(web, staff("viewer"))
    assert nobody.look("/ops/relay-letters").status == 403
    assert nobody.look(f"/ops/relay-letters/{group.like}").status == 403
    reader = Operator(web, staff("reader", "outbox.view_deadletter"))
    assert b"/ops/act/" not in reader.look("/ops/relay-letters").body
    assert b"/ops/act/" not in reader.look(f"/ops/relay-letters/{group.like}").body
    assert reader.look(f"/ops/act/replay-relay-letters?on={group.like}").status == 403


@pytest.mark.usefixtures("transactional_db", "permissions")
def test_without_rabbitmq_it_says_so_and_a_run_waits(
    policy: RelayPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_policy("page")
    with of_settings(policy):
        [group] = refuse(policy, *NO_ID)
        number = runs.begin_relay_run(
            "discard", group, ActionRequest(by="ada", why="a look", rate=200)
        )
    away = f"amqp://guest:s3cret-of-rabbitmq@127.0.0.1:{free_port()}/"
    with web_process(RABBITMQ_URL=away) as web, override_settings(RELAY={"url": away}):
        operator = Operator(web, staff("operator", *LETTERS))
        for path in (
            "/ops/relay-letters",
            f"/ops/relay-letters/{uuid4()}",
            f"/ops/act/discard-relay-letters?on={uuid4()}",
        ):
            answer = operator.look(path)
            assert answer.status == 503
            assert b"RabbitMQ does not answer" in answer.body
            assert b"s3cret" not in answer.body
        assert runs.work() == 0
        body = operator.look(f"/ops/done/{number}").body
        assert b"waits: RabbitMQ does not answer" in body
        assert b"s3cret" not in body
    with of_settings(policy):
        a_second_passes()
        assert runs.work() == 3
    assert waiting_letters(policy) == 0


@pytest.mark.usefixtures("transactional_db", "web")
def test_a_search_for_an_event_id_finds_what_the_relay_knows(policy: RelayPolicy) -> None:
    heartbeat = Heartbeat("relay")
    heartbeat.beat()  # that one has run
    heartbeat.end()
    large = Message(b'{"event_id": "large-9", "payload": "%b"}' % (b"l" * 1_100_000))
    refuse(policy, large)
    broker.publish(policy.url, policy.queue, [numbered("passes", 1)])
    with relaying(policy) as relay:
        settled(policy, relay)
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        server.set("event:left-1", "claimed somebody", px=DAY_MS - 90_000)

    def stops(text: str) -> list[tuple[str, str]]:
        return [(stop.state, colour) for stop, colour in search(text).relay]

    assert stops("passes-1") == [("published", "green")]
    assert stops("large-9") == [("dead letter", "red")]
    assert stops("left-1") == [("waiting", "grey")]
    [(left, _)] = search("left-1").relay
    assert left.at is not None
    assert (datetime.now(UTC) - left.at).total_seconds() >= 90
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        server.set("relay:owner:somebody", 1, px=60_000)
    assert stops("left-1") == [("under way", "grey")]
    nothing = search("never-1")
    assert (nothing.what, nothing.relay) == ("Nothing has this id.", ())
    assert any("cannot be looked up by an id" in note for note in nothing.notes)


def test_the_journey_of_a_relay_s_message_leads_to_its_dead_letter(
    operator: Operator, policy: RelayPolicy
) -> None:
    Heartbeat("relay").beat()
    large = Message(b'{"event_id": "large-8", "payload": "%b"}' % (b"l" * 1_100_000))
    [group] = refuse(policy, large)
    viewer = Operator(operator.web, staff("viewer", "outbox.view_outboxevent"))
    path = "/ops/journey?id=large-8"
    assert f"/ops/relay-letters/{group.like}" not in viewer.look(path).body.decode()
    both = Operator(operator.web, staff("both", "outbox.view_outboxevent", *LETTERS))
    page = both.look(path).body.decode()
    assert "message large-8 of the relay" in page
    assert "too_large" in page
    assert f'href="/ops/relay-letters/{group.like}"' in page
