"""The way back loses no event."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import InternalError, ProgrammingError, connection

from outbox.models import DeadLetter
from outbox.tests.backbone_rows import TOPIC
from outbox.tests.letters import HANDLER, event

pytestmark = pytest.mark.django_db(transaction=True)


def migrate(name: str) -> None:
    call_command("migrate", "outbox", name, verbosity=0)


@pytest.fixture(autouse=True)
def forward_again() -> Iterator[None]:
    yield
    call_command("migrate", "outbox", verbosity=0)


def letter(state: int) -> None:
    DeadLetter.objects.create(
        handler=HANDLER, event_id=event("{}").event_id, topic=TOPIC, key="k", state=state
    )


def test_there_is_no_way_back_while_dead_letters_are_open() -> None:
    """Their events are marked as done with, and would be applied by nobody."""
    letter(DeadLetter.State.DEAD)
    with pytest.raises((InternalError, ProgrammingError), match="Some dead letters are open"):
        migrate("0002")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM dead_letter")
        assert cursor.fetchone() == (1,)


def test_resolved_ones_do_not_hold_it_up() -> None:
    letter(DeadLetter.State.APPLIED)
    migrate("0002")
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('dead_letter')")
        assert cursor.fetchone() == (None,)
