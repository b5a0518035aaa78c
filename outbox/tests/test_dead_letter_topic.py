"""What a dead letter leaves on its topic, and a letter that cannot be made dead delays no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction

from outbox.dead_letters import due
from outbox.dead_letters import letters as letter_rows
from outbox.dead_letters.letter import Letter
from outbox.envelope import TraceContext, from_column, to_column
from outbox.models import DeadLetter, OutboxEvent
from outbox.tests.letters import (
    HANDLER,
    ROUTE,
    TOPIC,
    Applied,
    chunk,
    create_positions,
    event,
    make_due,
    run,
    states,
)


class TestALetterThatCannotBeBuried:
    @pytest.fixture(autouse=True)
    def one_of_two(self, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both ended their process at each try; the first cannot be told to the world."""
        create_positions()
        run(Applied("a", "b"), chunk([event("a", key="a"), event("b", key="b")]))
        DeadLetter.objects.update(attempts=ROUTE.tries)
        make_due()
        bury = letter_rows.bury

        def refuse_one(letters: Sequence[Letter], **options: Any) -> None:
            bury(letters, **options)
            if letters[0].event.payload == "a":
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 / 0")

        monkeypatch.setattr(letter_rows, "bury", refuse_one)

    def test_keeps_no_other_from_it(self) -> None:
        assert due.claim_due(ROUTE) == []
        assert states() == ["retrying", "dead"]
        assert OutboxEvent.objects.get(topic=ROUTE.topic.dlq).payload == "b"

    def test_is_looked_at_again_after_its_lease(self) -> None:
        due.claim_due(ROUTE)
        assert due.handlers_due() == []
        make_due()
        assert due.handlers_due() == [HANDLER]


class TestTheMessage:
    def buried(self, **changes: Any) -> OutboxEvent:
        create_positions()
        run(Applied("bad"), chunk([msgspec.structs.replace(event("bad"), key="k")]))
        [letter] = letter_rows.head_of(HANDLER, (TOPIC, 0, "k"))
        letter = replace(
            letter, event=msgspec.structs.replace(letter.event, **changes), error="x" * 9000
        )
        with transaction.atomic():
            letter_rows.bury([letter])
        return OutboxEvent.objects.get(topic=ROUTE.topic.dlq)

    def test_carries_the_value_as_it_was(self, db: None) -> None:
        assert self.buried(payload='{"a": 1}').payload == '{"a": 1}'

    @pytest.mark.parametrize("payload", ["x" * 1_100_000, "\udc80 no UTF-8", "a\0b"])
    def test_carries_only_ids_and_error_where_the_value_does_not_fit(
        self, db: None, payload: str
    ) -> None:
        announced = self.buried(payload=payload)
        assert announced.headers is not None
        assert json.loads(announced.payload) == announced.headers
        assert len(announced.headers["error"]) == 500

    @pytest.mark.parametrize("text", ["a\0b", "\udc80", "x" * 10_000])
    def test_goes_without_a_trace_that_is_no_id(self, db: None, text: str) -> None:
        announced = self.buried(trace=TraceContext(text, "the-request"))
        assert (announced.traceparent, announced.correlation_id) == ("", "the-request")


@pytest.mark.parametrize("text", ["", "plain ä", "\udc80\udcff", "a\0b", "\\base64:", "\\x"])
def test_any_text_survives_its_column(text: str) -> None:
    column = to_column(text)
    assert from_column(column) == text
    assert "\0" not in column
    column.encode()
