"""What fails is isolated, down to the event; what waits behind it is parked; a broken handler stops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import OperationalError

from outbox import conf
from outbox.conf import CIRCUIT
from outbox.dead_letters import letters
from outbox.envelope import EventEnvelope, ReceivedMessage
from outbox.handlers import crash_guard, isolate, pause
from outbox.inbox import positions as position_rows
from outbox.inbox.chunk import Chunk
from outbox.models import BridgePosition, DeadLetter, HandlerControl
from outbox.tests.letters import (
    HANDLER,
    TOPIC,
    TOPIC_ID,
    Applied,
    chunk,
    create_positions,
    event,
    make_due,
    outcomes,
    position,
    redrive_due,
    run,
    states,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def positions(db: None) -> None:
    create_positions()


def numbers(*given: int) -> list[str]:
    return [str(number) for number in given]


class TestBisecting:
    def test_finds_exactly_the_poison_among_five_hundred(self) -> None:
        events = [event(str(number), key=f"k{number}") for number in range(500)]
        applied = Applied("0", "77", "78", "499")
        assert run(applied, chunk(events)) == 496
        assert applied.payloads == numbers(*(n for n in range(500) if n not in (0, 77, 78, 499)))
        assert states("0", "77", "78", "499") == ["retrying"] * 4
        assert (outcomes(), position().next_offset) == ([496, 4, 0], 510)

    def test_keeps_all_that_is_known_of_the_event(self) -> None:
        poison = msgspec.structs.replace(event("bad"), source="/elsewhere")
        run(Applied("bad"), chunk([event("fine", key="other"), poison]))
        letter = DeadLetter.objects.get()
        assert (letter.handler, letter.event_id, letter.key) == (HANDLER, poison.event_id, "k")
        assert (letter.topic, letter.partition, letter.offset) == (TOPIC, 0, 11)
        assert (letter.topic_id, letter.attempts, letter.error) == (
            TOPIC_ID,
            1,
            "ValueError: poison",
        )
        assert letter.next_attempt_at is not None
        assert letter.failed_at is not None
        wait = (letter.next_attempt_at - letter.failed_at).total_seconds()
        assert 0.8 <= wait <= 1.21  # the first of 1, 2, 4 seconds, give or take a fifth

    def test_is_stopped_by_an_error_that_passes(self) -> None:
        events = [event(str(number), key=f"k{number}") for number in range(8)]
        away = _FailsLater("5", OperationalError("the connection is lost"), passes=True)
        assert run(away, chunk(events)) == 4
        assert (away.payloads, position().next_offset) == (numbers(0, 1, 2, 3), 14)
        assert states() == []

    def test_begins_no_bisect_for_an_error_that_passes(self) -> None:
        applied = Applied("1")
        applied.error = OperationalError("away")
        assert run(applied, chunk([event("0", "a"), event("1", "b")])) == 0
        assert (applied.calls, states(), position().next_offset) == (1, [], 10)

    def test_with_the_right_half_first_loses_the_left_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The guard removed: the right half goes first, from the offset where the left one begins."""
        real = isolate.halves

        def swapped(whole: Chunk) -> tuple[Chunk, Chunk]:
            left, right = real(whole)
            return replace(right, first_offset=left.first_offset), left

        monkeypatch.setattr(isolate, "halves", swapped)
        applied = Applied("3")
        run(applied, chunk([event(str(number), key=f"k{number}") for number in range(4)]))
        assert position().next_offset == 14
        assert len(applied.payloads) + len(states()) < 4

    def test_parks_what_cannot_be_decoded_with_every_byte(self) -> None:
        raw, key = b"\x80\x00 no JSON", b"\xffkey"
        message = ReceivedMessage(TOPIC, 0, 10, key, raw, [("ce_id", b"no id")], 0)
        garbage = message.envelope(TOPIC_ID)

        class Decoding(Applied):
            def __call__(self, events: Sequence[EventEnvelope]) -> None:
                for each in events:
                    each.payload.encode()
                super().__call__(events)

        follower = msgspec.structs.replace(event("after"), key=garbage.key)
        applied = Decoding()
        assert run(applied, chunk([garbage, follower, event("other")])) == 1
        assert states() == ["retrying", "parked"]
        [kept] = letters.head_of(HANDLER, (TOPIC, 0, garbage.key))
        assert kept.event.payload.encode("utf-8", "surrogateescape") == raw
        assert kept.event.key.encode("utf-8", "surrogateescape") == key
        assert kept.event.event_id == garbage.event_id


class _FailsLater(Applied):
    """Poison at first; an error of another kind once it has been bisected."""

    def __init__(self, poison: str, then: Exception, *, passes: bool) -> None:
        super().__init__(poison)
        self._then = then

    def __call__(self, events: Sequence[EventEnvelope]) -> None:
        if self.calls:
            self.error = self._then
        super().__call__(events)


class TestAKeyWithAnOpenLetter:
    def test_parks_what_comes_behind_and_nothing_else(self) -> None:
        applied = Applied("bad")
        first = chunk([event("bad"), event("2"), event("x", key="other")])
        assert run(applied, first) == 1
        assert run(applied, chunk([event("3"), event("y", key="other")], first=13)) == 1
        assert applied.payloads == ["x", "y"]
        assert states() == ["retrying", "parked", "parked"]
        assert outcomes() == [2, 3, 0]

    def test_is_asked_for_only_where_letters_are_open(self, django_assert_num_queries: Any) -> None:
        run(Applied("bad"), chunk([event("bad")]))
        with django_assert_num_queries(5):  # another partition: as if there were no letters
            run(Applied(), chunk([event("1", key="z")], partition=1))
        with django_assert_num_queries(6):
            run(Applied(), chunk([event("2", key="z")], first=11))

    def test_does_not_hold_back_a_handler_without_order(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unordered = replace(conf.route_named(HANDLER), ordered=False)
        monkeypatch.setattr(conf, "route_named", lambda _: unordered)
        applied = Applied("bad")
        run(applied, chunk([event("bad"), event("2")]))
        assert (applied.payloads, states()) == (["2"], ["retrying"])

    def test_parks_an_event_once_that_comes_twice(self) -> None:
        twice = event("2")
        run(Applied("bad"), chunk([event("bad"), twice, twice]))
        run(Applied("bad"), chunk([twice], first=13))
        assert states() == ["retrying", "parked"]

    def test_unasked_lets_a_follower_overtake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The guard removed."""
        monkeypatch.setattr(letters, "parked_keys", lambda *_: set())
        applied = Applied("1")
        run(applied, chunk([event("1"), event("2")]))
        applied.poison.clear()
        make_due()
        redrive_due(applied)
        assert applied.payloads == ["2", "1"]


class TestTheCircuit:
    def poisons(self, count: int) -> Chunk:
        return chunk([event("bad", key=f"k{number}") for number in range(count)])

    def test_trips_after_a_run_of_failures_and_keeps_the_positions(self) -> None:
        run(Applied("bad"), self.poisons(100))
        assert states() == ["retrying"] * CIRCUIT.run
        assert position().next_offset == 10 + CIRCUIT.run
        assert set(BridgePosition.objects.values_list("paused", flat=True)) == {True}
        [status] = pause.handler_statuses([HANDLER])
        assert status.tripped
        assert f"{CIRCUIT.run} failures in a row" in status.reason

    def test_counts_over_all_partitions(self) -> None:
        bad = [event("bad", key=f"k{number}") for number in range(CIRCUIT.run // 2)]
        other = [event("bad", key=f"l{number}") for number in range(CIRCUIT.run // 2)]
        run(Applied("bad"), chunk(bad))
        assert not pause.handler_statuses([HANDLER])[0].paused
        run(Applied("bad"), chunk(other, partition=1))
        assert pause.handler_statuses([HANDLER])[0].tripped

    def test_does_not_trip_when_successes_come_between(self) -> None:
        first = 10
        for number in range(2 * CIRCUIT.run):
            events = [event("bad", key=f"k{number}"), *(event("x", key="x") for _ in range(2))]
            run(Applied("bad"), chunk(events, first=first))
            first += 3
        assert not pause.handler_statuses([HANDLER])[0].paused

    def test_trips_when_half_of_the_outcomes_fail(self) -> None:
        first = 10
        for number in range(CIRCUIT.least):
            events = [event("bad", key=f"a{number}"), event("x", key="x")]
            run(Applied("bad"), chunk([*events, event("bad", key=f"b{number}")], first=first))
            first += 3
        status = pause.handler_statuses([HANDLER])[0]
        assert status.tripped
        assert "of the last outcomes failed" in status.reason

    def test_a_hot_key_with_many_followers_does_not_trip_it(self) -> None:
        run(Applied("bad"), chunk([event("bad"), *(event("x") for _ in range(200))]))
        assert not pause.handler_statuses([HANDLER])[0].paused
        assert len(states()) == 201

    def test_paused_nothing_is_redriven_and_resume_redrives_the_run(self) -> None:
        applied = Applied("bad")
        run(applied, self.poisons(CIRCUIT.run))
        DeadLetter.objects.filter(offset=11).update(state=DeadLetter.State.DEAD)
        applied.poison.clear()
        assert redrive_due(applied) == 0
        make_due()
        assert redrive_due(applied) == 0  # the position itself refuses
        assert pause.resume_handler(HANDLER, by="me") == CIRCUIT.run
        assert redrive_due(applied) == CIRCUIT.run
        assert states() == ["applied"] * CIRCUIT.run
        assert DeadLetter.objects.get(offset=11).replay_count == 1
        assert run(applied, chunk([event("new")], first=10 + CIRCUIT.run)) == 1

    def test_a_pause_by_hand_stops_and_resume_lets_go_on(self) -> None:
        pause.pause_handler(HANDLER, reason="a look", by="me")
        applied = Applied()
        assert run(applied, chunk([event("1")])) == 0
        row = HandlerControl.objects.get()
        assert (row.paused, row.reason, row.changed_by) == (True, "a look", "me")
        assert pause.resume_handler(HANDLER, by="me") == 0
        assert run(applied, chunk([event("1")])) == 1


class TestAStartThatNeverEnds:
    """The process ends inside the effect: here an exception that nothing catches."""

    class Killed(BaseException):
        pass

    def killing(self, *payloads: str) -> Applied:
        applied = Applied(*payloads)
        applied.error = self.Killed()  # type: ignore[assignment]
        return applied

    def deaths(self, applied: Applied, whole: Chunk, *, attempt: int) -> int:
        """Send the chunk until it returns; how often the process died."""
        for deaths in range(30):
            try:
                run(applied, whole, attempt=attempt)
            except self.Killed:
                attempt += 1
            else:
                return deaths
        raise AssertionError("It would go on for ever.")

    def test_is_narrowed_down_to_its_event(self) -> None:
        events = [event(str(number), key=f"k{number}") for number in range(500)]
        applied = self.killing("321")
        assert self.deaths(applied, chunk(events), attempt=0) <= 6
        assert applied.payloads == numbers(*(n for n in range(500) if n != 321))
        assert (states("321"), len(states())) == (["retrying"], 1)
        assert DeadLetter.objects.get().error == letters.NEVER_ENDED
        assert position().started_next is None

    def test_uses_its_tries_up_and_is_dead(self) -> None:
        applied = self.killing("1")
        self.deaths(applied, chunk([event("1"), event("2"), event("x", key="x")]), attempt=0)
        tries = 0
        while states("1") == ["retrying"]:
            make_due()
            tries += 1
            assert tries < 10
            with pytest.raises(self.Killed) if tries < 4 else nullcontext():
                redrive_due(applied)
        assert (states(), applied.payloads) == (["dead", "parked"], ["x"])
        assert tries == len(conf.route_named(HANDLER).retries) + 1

    def test_first_sends_write_no_note(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(position_rows, "note_start", pytest.fail)
        assert run(Applied(), chunk([event("1")])) == 1

    def test_a_chunk_that_only_waited_is_never_accused(self) -> None:
        applied = Applied()
        assert run(applied, chunk([event("1"), event("2")]), attempt=60) == 2
        assert (applied.payloads, applied.calls, states()) == (["1", "2"], 1, [])

    def test_an_error_that_passes_takes_the_note_back(self) -> None:
        applied = Applied("1")
        applied.error = OperationalError("away")
        for attempt in range(1, 8):
            run(applied, chunk([event("1")]), attempt=attempt)
        assert (states(), position().started_next) == ([], None)

    def test_kept_notes_would_accuse_an_innocent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The guard removed."""
        monkeypatch.setattr(position_rows, "forget_start", lambda *_: None)
        applied = Applied("1")
        applied.error = OperationalError("away")
        for attempt in range(1, 8):
            run(applied, chunk([event("1")]), attempt=attempt)
        assert states() == ["retrying"]

    def test_pieces_cover_the_chunk_without_gap(self) -> None:
        whole = chunk([event(str(number), key=f"k{number}") for number in range(100)])
        position_rows.note_start(HANDLER, (TOPIC, 0), 60, 1)
        pieces, seen = crash_guard.PieceSize(), []
        while (start := position().next_offset) < whole.next_offset:
            locked = position_rows.lock_positions(HANDLER, [(TOPIC, 0)])[TOPIC, 0]
            piece, accused = crash_guard.next_piece(HANDLER, whole, locked, pieces)
            assert (piece.first_offset, accused) == (start, False)
            seen += [UUID(str(item.event_id)) for _, item in piece.events]
            position_rows.advance_positions(HANDLER, [piece])
        assert seen == [item.event_id for _, item in whole.events]
