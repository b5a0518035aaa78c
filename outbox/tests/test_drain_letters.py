"""A message that Kafka refuses for good: it is dead, its key is held, in order, until it is resolved."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from structlog.testing import capture_logs

from devtools.testing.advice import advised_with_arguments
from outbox.conf import DRAIN, DRAIN_HANDLER, DrainPolicy
from outbox.dead_letters import refused as refused_letters
from outbox.drain.run import Drain
from outbox.models import DeadLetter, OutboxEvent, OutboxLane
from outbox.tests.test_drain import TOPIC, Kafka, Noted, kafka, keys_of_lane, write

__all__ = ["kafka"]  # a fixture

pytestmark = pytest.mark.django_db

IMPATIENT = DrainPolicy(backoff_first=0.0, run_seconds=0.5)
Status = OutboxEvent.Status


def statuses(key: str = "k") -> str:
    """One letter a row: new, published, held, dead; in order."""
    rows = OutboxEvent.objects.filter(key=key, topic=TOPIC.name).order_by("id")
    return "".join(row.get_status_display()[0] for row in rows)


def texts(kafka: Kafka, key: str = "k") -> list[str]:
    return [value.strip('"') for name, value in kafka.log if name == key and "{" not in value]


@pytest.fixture
def drain() -> Drain:
    return Drain(IMPATIENT)


def drain_on(drain: Drain) -> None:
    """Until nothing more happens."""
    for _ in range(2 * DRAIN.refusals):
        drain.run()


@pytest.fixture
def refused(kafka: Kafka, drain: Drain) -> Kafka:
    write(Noted("k", "before"), Noted("k", "bad"), Noted("k", "1"), Noted("k", "2"), Noted("l"))
    drain_on(drain)
    return kafka


def mend() -> None:
    OutboxEvent.objects.filter(payload='"bad"').update(payload='"good"')


class TestARefusedMessage:
    def test_is_dead_after_a_few_tries_and_its_key_is_held(
        self, refused: Kafka, drain: Drain
    ) -> None:
        assert (statuses(), statuses("l")) == ("pdhh", "p")
        assert texts(refused) == ["before"]
        letter = DeadLetter.objects.get()
        assert (letter.handler, letter.state, letter.error) == (
            DRAIN_HANDLER,
            DeadLetter.State.DEAD,
            "too large",
        )
        assert letter.attempts == DRAIN.refusals
        assert not drain.state.refused

    def test_is_shown_by_what_the_log_advises(self, kafka: Kafka, capsys: Any) -> None:
        write(Noted("k", "bad"))
        with capture_logs() as logs:
            drain_on(Drain(IMPATIENT))
        [advice] = [line["advice"] for line in logs if line["event"] == "message_dead"]
        [command] = advised_with_arguments(advice)
        call_command(*command)
        assert json.loads(capsys.readouterr().out)["error"] == "too large"

    def test_is_told_without_its_payload(self, refused: Kafka) -> None:
        announced = OutboxEvent.objects.get(topic=TOPIC.dlq)
        assert announced.headers is not None
        assert (announced.status, announced.headers["handler"]) == (Status.PUBLISHED, DRAIN_HANDLER)
        assert "bad" not in announced.payload

    def test_holds_what_is_written_later(self, refused: Kafka, drain: Drain) -> None:
        write(Noted("k", "3"), Noted("l", "more"))
        tried = len(refused.requests)
        drain_on(drain)
        assert (statuses(), statuses("l")) == ("pdhhh", "pp")
        assert len(refused.requests) == tried + 1

    def test_goes_out_first_once_it_is_replayed_and_fits(
        self, refused: Kafka, drain: Drain, capsys: Any
    ) -> None:
        write(Noted("k", "3"))
        mend()
        call_command("dead_letters", "replay", "--handler", DRAIN_HANDLER)
        assert statuses() == "pnhhn"
        write(Noted("k", "4"))
        drain_on(drain)
        assert texts(refused) == ["before", "good", "1", "2", "3", "4"]
        assert statuses() == "pppppp"
        assert DeadLetter.objects.get().state == DeadLetter.State.APPLIED
        assert not OutboxLane.objects.filter(letters_open=True).exists()

    def test_is_dead_again_if_it_is_refused_again(
        self, refused: Kafka, drain: Drain, capsys: Any
    ) -> None:
        call_command("dead_letters", "replay", "--handler", DRAIN_HANDLER)
        drain_on(drain)
        letter = DeadLetter.objects.get()
        assert (letter.state, letter.replay_count) == (DeadLetter.State.DEAD, 1)
        assert statuses() == "pdhh"
        assert OutboxEvent.objects.filter(topic=TOPIC.dlq).count() == 2

    def test_lets_its_followers_go_once_it_is_discarded(
        self, refused: Kafka, drain: Drain, capsys: Any
    ) -> None:
        call_command("dead_letters", "discard", "--handler", DRAIN_HANDLER)
        write(Noted("k", "3"))
        drain_on(drain)
        assert (texts(refused), statuses()) == (["before", "1", "2", "3"], "pdppp")
        assert not OutboxLane.objects.filter(letters_open=True).exists()

    def test_without_holding_would_be_overtaken(
        self, refused: Kafka, drain: Drain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The guard removed."""
        monkeypatch.setattr(refused_letters, "hold_followers", lambda _: (0, {}))
        write(Noted("k", "3"))
        drain_on(drain)
        assert texts(refused) == ["before", "3"]

    def test_leaves_other_keys_of_its_lane_alone(self, kafka: Kafka, drain: Drain) -> None:
        bad, other = keys_of_lane(5, 2)
        write(Noted(bad, "bad"), Noted(bad), Noted(other))
        drain_on(drain)
        write(Noted(other), Noted(bad))
        drain_on(drain)
        assert (statuses(bad), statuses(other)) == ("dhh", "pp")


@pytest.mark.django_db(transaction=True)
class TestARowCommittedBetweenTheHoldAndTheRead:
    @pytest.fixture(autouse=True)
    def writer(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Each time followers were held, somebody commits the next of these of the same key."""
        texts = ["3", "4", "5"]
        hold_followers = refused_letters.hold_followers

        def write_one() -> None:
            write(Noted("k", texts.pop(0)))
            connection.close()

        def hold_and_be_late(lanes: Iterable[int]) -> Any:
            held = hold_followers(lanes)
            if texts:
                thread = threading.Thread(target=write_one)
                thread.start()
                thread.join()
            return held

        monkeypatch.setattr(refused_letters, "hold_followers", hold_and_be_late)
        return texts

    def sent(self, kafka: Kafka, drain: Drain) -> list[str]:
        write(Noted("k", "bad"), Noted("k", "1"), Noted("k", "2"))
        drain_on(drain)
        mend()
        call_command("dead_letters", "replay", "--handler", DRAIN_HANDLER)
        drain_on(drain)
        return texts(kafka)

    def test_waits_for_the_head_and_for_what_is_held(
        self, kafka: Kafka, drain: Drain, writer: list[str], capsys: Any
    ) -> None:
        assert self.sent(kafka, drain) == ["good", "1", "2", "3", "4", "5"]
        assert not writer
        assert not OutboxLane.objects.filter(letters_open=True).exists()

    def test_overtakes_without_the_look_after_the_read(
        self, kafka: Kafka, drain: Drain, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        """The guard removed."""
        monkeypatch.setattr(refused_letters, "without_followers", lambda pending, _: pending)
        assert self.sent(kafka, drain) != ["good", "1", "2", "3", "4", "5"]


def test_a_refusal_without_a_name_only_pauses_its_key(kafka: Kafka, drain: Drain) -> None:
    kafka.names_refused = False
    write(Noted("k", "bad"), Noted("k"))
    drain_on(drain)
    assert (statuses(), DeadLetter.objects.count()) == ("nn", 0)


def test_a_message_of_a_dead_letter_topic_never_becomes_a_dead_letter(
    kafka: Kafka, drain: Drain
) -> None:
    """Its payload is refused: it goes without. Its ids are refused too: it is dropped, loudly."""
    write(Noted("k", "bad"), Noted("l", "bad"))
    OutboxEvent.objects.update(topic=TOPIC.dlq, lane=0)
    OutboxEvent.objects.filter(key="k").update(headers={"error": "fine"})
    OutboxEvent.objects.filter(key="l").update(headers={"error": "bad"})
    for _ in range(4):
        drain_on(drain)
    rows = dict(OutboxEvent.objects.values_list("key", "status"))
    assert rows == {"k": Status.PUBLISHED, "l": Status.DEAD}
    assert not DeadLetter.objects.exists()
