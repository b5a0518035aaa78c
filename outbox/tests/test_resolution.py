"""What an operator can do: commands over letters and handlers, resumable, with a trace of who did it."""

from __future__ import annotations

import getpass
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from outbox.handlers import pause
from outbox.models import BridgePosition, DeadLetter, DeadLetterAction, InboxReceipt
from outbox.tests.letters import (
    HANDLER,
    TOPIC,
    Applied,
    chunk,
    create_positions,
    event,
    outcomes,
    position,
    redrive_due,
    run,
    states,
)

pytestmark = pytest.mark.django_db
State = DeadLetter.State


@pytest.fixture
def applied(db: None) -> Applied:
    """Two keys with a dead head each, the first with two followers."""
    create_positions()
    applied = Applied("a1", "b1")
    events = [event(name, key=name[0]) for name in ("a1", "b1", "a2", "a3")]
    run(applied, chunk(events))
    DeadLetter.objects.filter(payload__in=["a1", "b1"]).update(
        state=State.DEAD, attempts=4, next_attempt_at=None
    )
    return applied


def command(*args: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    call_command("dead_letters", *args)
    return capsys.readouterr().out.splitlines()


def ids(*payloads: str) -> list[str]:
    return [str(DeadLetter.objects.get(payload=payload).id) for payload in payloads]


def left() -> dict[str, str]:
    rows = DeadLetter.objects.order_by("id")
    return {row.payload: row.get_state_display() for row in rows}


class TestFinding:
    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ([], 4),
            (["--state", "dead"], 2),
            (["--state", "dead", "--state", "parked"], 4),
            (["--key", "a"], 3),
            (["--handler", "nobody"], 0),
            (["--topic", TOPIC, "--error", "poison"], 2),
            (["--since", "1h"], 4),
            (["--since", "2999-01-01T00:00:00Z"], 0),
            (["--limit", "3"], 3),
        ],
    )
    def test_list_takes_filters(
        self, applied: Applied, filters: list[str], found: int, capsys: Any
    ) -> None:
        assert len(command("list", *filters, capsys=capsys)) == found

    def test_inspect_tells_all_as_json(self, applied: Applied, capsys: Any) -> None:
        [line] = command("inspect", "--topic", TOPIC, "--limit", "1", capsys=capsys)
        described = json.loads(line)
        assert (described["state"], described["payload"], described["offset"]) == ("dead", "a1", 10)
        assert (described["error"], described["history"]) == ("ValueError: poison", [])


class TestReplay:
    def test_gives_a_dead_head_all_its_tries_and_its_followers_go_after_it(
        self, applied: Applied, capsys: Any
    ) -> None:
        applied.poison.clear()
        lines = command("replay", "--topic", TOPIC, "--limit", "10", "--by", "ann", capsys=capsys)
        assert lines[-1] == "2 replayed, 0 skipped."
        assert redrive_due(applied) == 4
        assert applied.payloads == ["a1", "a2", "a3", "b1"]
        assert left() == dict.fromkeys(("a1", "b1", "a2", "a3"), "applied")
        row = DeadLetter.objects.get(payload="a1")
        assert (row.replay_count, row.attempts) == (1, 1)
        assert set(DeadLetterAction.objects.values_list("action", "by")) == {("replay", "ann")}

    def test_interrupted_goes_on_where_it_was(self, applied: Applied, capsys: Any) -> None:
        command("replay", "--limit", "1", capsys=capsys)
        assert left() == {"a1": "retrying", "b1": "dead", "a2": "parked", "a3": "parked"}
        assert command("replay", capsys=capsys)[-1] == "1 replayed, 0 skipped."
        assert command("replay", capsys=capsys)[-1] == "0 replayed, 0 skipped."
        assert set(DeadLetter.objects.values_list("replay_count", flat=True)) == {0, 1}

    def test_dry_runs_change_nothing(self, applied: Applied, capsys: Any) -> None:
        lines = command("replay", "--dry-run", "--key", "a", capsys=capsys)
        assert lines[-1] == "Would replay 1 letters; 2 followers are applied after them."
        assert left() == {"a1": "dead", "b1": "dead", "a2": "parked", "a3": "parked"}

    def test_of_one_that_is_being_retried_makes_it_due(self, applied: Applied, capsys: Any) -> None:
        DeadLetter.objects.filter(payload="b1").update(
            state=State.RETRYING, next_attempt_at="2999-01-01T00:00:00Z"
        )
        applied.poison.clear()
        command("replay", *ids("b1"), capsys=capsys)
        assert redrive_due(applied) == 1

    def test_of_one_without_a_head_makes_it_the_head(self, applied: Applied, capsys: Any) -> None:
        """Its head stood in another partition, or was resolved by hand."""
        DeadLetter.objects.filter(payload="a1").update(partition=1)
        applied.poison.clear()
        assert command("replay", *ids("a3", "a2"), capsys=capsys)[-1] == "1 replayed, 1 skipped."
        assert redrive_due(applied) == 2
        assert applied.payloads == ["a2", "a3"]

    def test_counts_no_followers_of_another_partition(self, applied: Applied, capsys: Any) -> None:
        DeadLetter.objects.filter(payload="a3").update(partition=1)
        lines = command("replay", "--dry-run", *ids("a1"), capsys=capsys)
        assert lines[-1] == "Would replay 1 letters; 1 followers are applied after them."

    def test_keeps_to_its_rate(self, applied: Applied, monkeypatch: Any, capsys: Any) -> None:
        slept: list[float] = []
        monkeypatch.setattr("outbox.dead_letters.resolve.time.sleep", slept.append)
        command("replay", "--rate", "0.001", capsys=capsys)
        at_once, a_thousand_seconds = slept
        assert at_once == 0.0
        assert 500 < a_thousand_seconds <= 1000  # what has passed since the first is taken off


class TestDiscard:
    def test_frees_what_waits_behind_it(self, applied: Applied, capsys: Any) -> None:
        command("discard", *ids("a1"), "--by", "ann", "--note", "a test order", capsys=capsys)
        assert left() == {"a1": "discarded", "b1": "dead", "a2": "retrying", "a3": "parked"}
        assert redrive_due(applied) == 2
        assert (applied.payloads, outcomes()) == (["a2", "a3"], [2, 1, 1])
        row = DeadLetter.objects.get(payload="a1")
        assert (row.resolved_by, row.note, row.resolved_at is not None) == (
            "ann",
            "a test order",
            True,
        )

    def test_of_a_whole_key_never_lets_a_follower_go_first(
        self, applied: Applied, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two letters a redrive runs."""
        monkeypatch.setattr(
            "outbox.dead_letters.resolve.time.sleep", lambda _: redrive_due(applied)
        )
        call_command("dead_letters", "discard", "--key", "a", "--rate", "1000")
        assert left()["a3"] == "discarded"
        assert applied.payloads == []

    def test_of_what_was_applied_meanwhile_says_so(self, applied: Applied, capsys: Any) -> None:
        InboxReceipt.objects.update(outcome=InboxReceipt.Outcome.APPLIED)
        [line, _] = command("discard", *ids("b1"), capsys=capsys)
        assert line.endswith("was applied meanwhile")
        assert left()["b1"] == "applied"

    def test_of_a_whole_key_leaves_it_free(self, applied: Applied, capsys: Any) -> None:
        assert command("discard", "--key", "a", capsys=capsys)[-1] == "3 discarded, 0 skipped."
        command("discard", "--key", "b", capsys=capsys)
        assert not position().letters_open
        assert run(applied, chunk([event("a4", key="a")], first=14)) == 1
        by = set(DeadLetterAction.objects.values_list("by", flat=True))
        assert by == {getpass.getuser()}

    def test_of_a_resolved_letter_is_skipped(self, applied: Applied, capsys: Any) -> None:
        wanted = ids("b1")
        command("discard", *wanted, capsys=capsys)
        assert command("discard", *wanted, capsys=capsys)[-1] == "0 discarded, 0 skipped."


class TestFollowersWithoutTheirHead:
    @pytest.mark.parametrize("action", ["replay", "discard"])
    @pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
    def test_are_refused(self, applied: Applied, action: str, dry_run: list[str]) -> None:
        before = left()
        with pytest.raises(CommandError, match="Name the head"):
            call_command("dead_letters", action, *ids("a2"), *dry_run)
        assert left() == before

    def test_are_refused_by_state_too(self, applied: Applied) -> None:
        with pytest.raises(CommandError, match="Name the head"):
            call_command("dead_letters", "discard", "--state", "parked")

    def test_go_with_their_head(self, applied: Applied, capsys: Any) -> None:
        assert command("discard", *ids("a1", "a2"), capsys=capsys)[-1] == "2 discarded, 0 skipped."
        assert states("a3") == ["retrying"]


class TestHandlers:
    def run_command(self, *args: str, capsys: Any) -> str:
        call_command("handlers", *args)
        return str(capsys.readouterr().out)

    def test_are_paused_and_resumed_for_good(self, applied: Applied, capsys: Any) -> None:
        self.run_command("pause", HANDLER, "--reason", "a look", "--by", "ann", capsys=capsys)
        assert set(BridgePosition.objects.values_list("paused", flat=True)) == {True}
        assert "by ann: a look" in self.run_command("list", capsys=capsys)
        assert run(applied, chunk([event("x", key="x")], first=14)) == 0
        self.run_command("resume", HANDLER, capsys=capsys)
        assert f"{HANDLER}  running" in self.run_command("list", capsys=capsys)
        assert run(applied, chunk([event("x", key="x")], first=14)) == 1

    def test_that_are_unknown_are_named(self, db: None) -> None:
        with pytest.raises(CommandError, match="No handler has the name 'nobody'"):
            call_command("handlers", "pause", "nobody", "--reason", "x")

    def test_that_are_new_get_the_pause_of_their_name(self, applied: Applied) -> None:
        pause.pause_handler(HANDLER, reason="a look", by="ann")
        BridgePosition.objects.filter(partition=1).update(paused=False)
        pause.spread_pauses()
        assert position(1).paused
