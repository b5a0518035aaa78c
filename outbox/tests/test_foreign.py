"""Events of other producers that nobody can decode: parked together, counted apart, and no reason
to stop the handler; what we wrote ourselves and cannot decode is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from kombu.utils import json as kombu_json
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from devtools.testing.advice import advised_with_arguments
from outbox import conf
from outbox.conf import CIRCUIT
from outbox.envelope import EventEnvelope
from outbox.handlers import foreign, pause, task
from outbox.inbox.chunk import Chunk, TaskChunk
from outbox.models import HandlerControl, OutboxEvent
from outbox.publish.known import known_event_ids
from outbox.tests.letters import (
    HANDLER,
    TOPIC,
    Applied,
    chunk,
    create_positions,
    event,
    outcomes,
    position,
    states,
)

pytestmark = pytest.mark.django_db
BURST = 1500


@pytest.fixture(autouse=True)
def positions(db: None) -> None:
    create_positions()


def decode(payload: str) -> None:
    if payload.startswith("{bad"):
        raise ValueError("no JSON")


class Decoding(Applied):
    """An effect that decodes its events first, as those of the apps do."""

    def __call__(self, events: Sequence[EventEnvelope]) -> None:
        for each in events:
            decode(each.payload)
        super().__call__(events)


def run(effect: Applied, *chunks: Chunk, attempt: int = 0) -> int:
    sent = [replace(item, attempt=attempt) for item in chunks]
    carried = [TaskChunk(kombu_json.loads(kombu_json.dumps(item.to_task()))) for item in sent]
    return task.run_chunks(handler=HANDLER, chunks=carried, effect=effect, decode=decode)


def write(*events: EventEnvelope) -> None:
    """As rows of our outbox."""
    for each in events:
        OutboxEvent.objects.create(
            event_id=each.event_id,
            lane=0,
            topic=each.topic,
            key=each.key,
            type=each.type,
            source=each.source,
            payload=each.payload,
            status=OutboxEvent.Status.PUBLISHED,
        )


def counted() -> float:
    return REGISTRY.get_sample_value("dead_letters_foreign_total", {"handler": HANDLER}) or 0.0


def is_paused() -> bool:
    return pause.handler_statuses([HANDLER])[0].paused


def bad(count: int, *, key: str = "f{}") -> list[EventEnvelope]:
    return [event("{bad", key=key.format(number)) for number in range(count)]


class TestABurst:
    def test_is_parked_as_a_whole_beside_what_is_applied(self) -> None:
        before, applied = counted(), Decoding()
        ours = [event(str(number), key=f"k{number}") for number in range(100)]
        write(*ours)
        mixed = [each for pair in zip(bad(100), ours, strict=True) for each in pair]
        assert run(applied, chunk([*mixed, *bad(BURST - 100, key="g{}")])) == 100
        assert applied.payloads == [str(number) for number in range(100)]
        assert states() == ["dead"] * BURST
        assert outcomes() == [100, BURST, 0]
        assert position().next_offset == 10 + BURST + 100
        assert counted() - before == BURST
        assert not is_paused()

    def test_costs_no_statement_an_event(self) -> None:
        with CaptureQueriesContext(connection) as few:
            run(Decoding(), chunk([event("1"), *bad(2)]))
        with CaptureQueriesContext(connection) as many:
            run(Decoding(), chunk([event("1"), *bad(BURST)], partition=1))
        assert len(many) == len(few)

    @pytest.mark.parametrize("attempt", [0, 1])
    def test_over_many_chunks_trips_no_circuit(self, attempt: int) -> None:
        for number in range(5):
            events = bad(CIRCUIT.least, key=f"{number}-{{}}")
            run(Decoding(), chunk(events, first=10 + number * len(events)), attempt=attempt)
        assert len(states()) == 5 * CIRCUIT.least
        assert not is_paused()

    def test_is_announced_on_the_dead_letter_topic(self) -> None:
        run(Decoding(), chunk(bad(3)))
        [row] = OutboxEvent.objects.filter(topic=f"{TOPIC}.dlq")[:1]
        assert row.payload == "{bad"
        assert (row.headers or {})["error"].startswith(foreign.NOT_OURS)
        assert OutboxEvent.objects.count() == 3

    def test_that_comes_again_changes_nothing(self) -> None:
        before, burst = counted(), bad(3)
        run(Decoding(), chunk(burst))
        run(Decoding(), chunk([*burst, event("1")], first=13))
        assert (states(), outcomes()) == (["dead"] * 3, [1, 3, 0])
        assert counted() - before == 3

    def test_that_repeats_the_id_of_a_good_one_harms_it_not(self) -> None:
        applied, good, poison = Decoding(), event("1"), bad(1)
        copy = msgspec.structs.replace(poison[0], event_id=good.event_id)
        assert run(applied, chunk([*poison, good, copy])) == 1
        assert (applied.payloads, states()) == (["1"], ["dead"])

    def test_beside_poison_of_ours_leaves_only_that_to_the_circuit(self) -> None:
        applied = Decoding("poison")
        ours = event("poison", key="p")
        write(ours)
        assert run(applied, chunk([*bad(3), ours, event("1", key="o")])) == 1
        assert states() == ["dead"] * 3 + ["retrying"]
        assert position().failure_run <= 1

    def test_with_the_database_away_is_left_for_later(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(topic: str, ids: object) -> set[Any]:
            raise OperationalError("gone")

        monkeypatch.setattr(foreign, "known_event_ids", away)
        for attempt in (0, 1):
            assert run(Decoding(), chunk([*bad(1), event("1")]), attempt=attempt) == 0
        assert (states(), position().next_offset) == ([], 10)

    def test_is_listed_and_discarded_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(Decoding(), chunk(bad(30, key="same")), chunk(bad(30), partition=1))
        wanted = ["--handler", HANDLER, "--error", foreign.NOT_OURS]
        call_command("dead_letters", "list", *wanted, "--limit", "50")
        assert capsys.readouterr().err.splitlines()[-1] == "Left out by --limit 50: 10."
        wanted += ["--limit", "2000"]
        call_command("dead_letters", "list", *wanted)
        assert len(capsys.readouterr().out.splitlines()) == 60
        call_command("dead_letters", "discard", *wanted)
        assert capsys.readouterr().out.splitlines()[-1] == "60 discarded, 0 skipped."
        assert (set(states()), outcomes()) == ({"discarded"}, [0, 0, 60])
        assert not position().letters_open


def test_what_the_log_advises_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with capture_logs() as logs:
        run(Decoding(), chunk(bad(3)))
    [advice] = [line["advice"] for line in logs if line["event"] == "foreign_events_parked"]
    [command] = advised_with_arguments(advice)
    call_command(*command)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_key_that_would_command_the_terminal_is_spelt_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(Decoding(), chunk(bad(1, key="\x1b[2J\x9b31mk")))
    call_command("dead_letters", "list")
    assert r"key=\x1b[2J\x9b31mk" in capsys.readouterr().out


class TestTheKeyOfAForeignEvent:
    def test_waits_behind_it_in_the_same_chunk(self) -> None:
        applied = Decoding()
        ours = [event("1"), event("2"), event("x", key="other")]
        write(*ours)
        run(applied, chunk([ours[0], *bad(2, key="k"), *ours[1:]]))
        assert applied.payloads == ["1", "x"]
        assert states() == ["dead", "parked", "parked"]

    def test_goes_on_when_it_is_discarded(self) -> None:
        applied = Decoding()
        run(applied, chunk([*bad(2, key="k"), event("1")]))
        call_command("dead_letters", "discard", "--error", foreign.NOT_OURS)
        assert states() == ["discarded", "discarded", "retrying"]

    def test_is_not_held_by_one_that_was_discarded_and_comes_again(self) -> None:
        applied, burst = Decoding(), bad(1, key="k")
        run(applied, chunk(burst))
        call_command("dead_letters", "discard")
        assert run(applied, chunk([*burst, event("1")], first=11)) == 1
        assert states() == ["discarded"]

    def test_waits_for_nobody_where_there_is_no_order(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unordered = replace(conf.route_named(HANDLER), ordered=False)
        monkeypatch.setattr(conf, "route_named", lambda _: unordered)
        run(Decoding(), chunk([*bad(2, key="k"), event("1")]))
        assert (states(), outcomes()) == (["dead", "dead"], [1, 2, 0])


def test_events_of_ours_that_cannot_be_decoded_trip_the_circuit() -> None:
    """A decoder that became too strict must not park everything."""
    burst = bad(100)
    write(*burst)
    before = counted()
    run(Decoding(), chunk(burst))
    assert states() == ["retrying"] * CIRCUIT.run
    assert (is_paused(), counted() - before) == (True, 0)


def test_which_events_the_outbox_knows() -> None:
    ours, theirs = event("1"), event("2")
    write(ours)
    assert known_event_ids(TOPIC, [ours.event_id, theirs.event_id]) == {ours.event_id}
    assert known_event_ids(TOPIC, []) == set()


class TestParkingFailures:
    def tripped(self) -> list[EventEnvelope]:
        burst = bad(100)
        write(*burst)
        run(Decoding(), chunk(burst))
        assert is_paused()
        return burst

    def test_takes_what_comes_and_then_begins_to_count_anew(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rest = self.tripped()[CIRCUIT.run :]
        call_command("handlers", "resume", HANDLER, "--park-failures", "10m")
        assert "For 0:10:00 its circuit does not trip." in capsys.readouterr().out
        call_command("handlers", "list")
        assert f"{HANDLER}  running, parks failures until 2" in capsys.readouterr().out
        run(Decoding(), chunk(rest, first=10 + CIRCUIT.run))
        assert len(states()) == 100
        assert not is_paused()

        HandlerControl.objects.update(parks_failures_until="2026-01-01T00:00:00Z")
        call_command("handlers", "list")
        assert f"{HANDLER}  running\n" in capsys.readouterr().out
        later = bad(CIRCUIT.run, key="later{}")
        write(*later)
        run(Decoding(), chunk(later[:1], first=110))
        assert not is_paused()
        run(Decoding(), chunk(later[1:], first=111))
        assert is_paused()

    def test_without_it_a_resume_takes_one_run_more(self) -> None:
        rest = self.tripped()[CIRCUIT.run :]
        call_command("handlers", "resume", HANDLER)
        run(Decoding(), chunk(rest, first=10 + CIRCUIT.run))
        assert len(states()) == 2 * CIRCUIT.run
        assert is_paused()

    @pytest.mark.parametrize("action", [["pause", HANDLER, "--reason", "x"], ["resume", HANDLER]])
    def test_ends_with_the_next_word(self, action: list[str]) -> None:
        pause.resume_handler(HANDLER, by="me", park_failures=timedelta(minutes=10))
        call_command("handlers", *action)
        assert HandlerControl.objects.get().parks_failures_until is None

    @pytest.mark.parametrize("text", ["0m", "2d", "10", "m", "-5m", "٣m", "", "99999999999999d"])
    def test_has_a_bound(self, text: str) -> None:
        with pytest.raises(CommandError, match="park-failures"):
            call_command("handlers", "resume", HANDLER, f"--park-failures={text}")
