"""Pausing a lane: at once, durable, and never in the middle of a batch."""

from __future__ import annotations

import re
import threading
from io import StringIO
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client

from devtools.testing.patience import PATIENCE
from outbox.lanes import pause
from outbox.lanes.claim import claim_lanes
from outbox.lanes.floors import Floors
from outbox.lanes.pause import LaneBusy, UnknownLane
from outbox.models import OutboxEvent, OutboxLane
from outbox.tests.admin_pages import log_in
from outbox.tests.backbone_rows import ORDER_EVENTS

LANES = "/admin/outbox/outboxlane/"


def wait_in(*numbers: int) -> None:
    for lane in numbers:
        OutboxEvent.objects.create(
            event_id=uuid4(), lane=lane, topic=ORDER_EVENTS.name, key="k", type="T", source="/"
        )


def run_command(*arguments: str) -> str:
    out = StringIO()
    call_command("lanes", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.django_db
class TestAPausedLane:
    def test_is_not_claimed_and_holds_up_no_other(self) -> None:
        wait_in(3, 4)
        assert pause.pause_lanes([3], reason="r", by="me") == [3]
        assert claim_lanes(16, floors=Floors()) == [4]
        assert pause.resume_lanes([3, 4]) == [3]
        assert sorted(claim_lanes(16, floors=Floors())) == [3, 4]

    def test_paused_again_keeps_who_paused_it(self) -> None:
        pause.pause_lanes([3], reason="first", by="me")
        assert pause.pause_lanes([3], reason="second", by="you") == []
        row = OutboxLane.objects.get(lane=3)
        assert (row.paused_reason, row.paused_by, row.paused_at is None) == ("first", "me", False)

    def test_that_does_not_exist_changes_nothing(self) -> None:
        with pytest.raises(UnknownLane, match="64"):
            pause.pause_lanes([3, 64], reason="", by="me")
        assert not OutboxLane.objects.filter(paused=True).exists()


@pytest.mark.django_db(transaction=True)
class TestALaneThatADrainHolds:
    def hold(self, lane: int, end: threading.Event) -> threading.Thread:
        held = threading.Event()

        def drain_batch() -> None:
            with transaction.atomic():
                assert claim_lanes(1, floors=Floors()) == [lane]
                held.set()
                assert end.wait(PATIENCE)
            connection.close()

        thread = threading.Thread(target=drain_batch)
        thread.start()
        assert held.wait(PATIENCE)
        return thread

    def test_is_paused_once_the_drain_has_ended(self) -> None:
        wait_in(3)
        end = threading.Event()
        thread = self.hold(3, end)
        threading.Timer(0.3, end.set).start()
        assert pause.pause_lanes([3], reason="", by="me") == [3]
        assert end.is_set()
        thread.join()

    def test_is_given_up_with_the_name_of_its_holder(self) -> None:
        wait_in(3)
        end = threading.Event()
        thread = self.hold(3, end)
        with pytest.raises(
            LaneBusy, match=r"^eventsite \(pid \d+\) did not release a lane within 0.2 s"
        ):
            pause.pause_lanes([2, 3], reason="", by="me", wait=0.2)
        held = [state for state in pause.lane_states() if state.holder]
        assert [(state.lane, state.application) for state in held] == [(3, "eventsite")]
        end.set()
        thread.join()
        assert not OutboxLane.objects.filter(paused=True).exists()
        assert not [state for state in pause.lane_states() if state.holder]

    def test_paused_between_snapshot_and_lock_is_not_claimed(self) -> None:
        """The claim waits for nothing: it skips the lane, or sees that it is paused."""
        wait_in(3)
        with transaction.atomic():
            pause.pause_lanes([3], reason="", by="me")
            claimed: list[list[int]] = []

            def claim() -> None:
                with transaction.atomic():
                    claimed.append(claim_lanes(16, floors=Floors()))
                connection.close()

            thread = threading.Thread(target=claim)
            thread.start()
            thread.join()
            assert claimed == [[]]


@pytest.mark.django_db
class TestTheCommand:
    def test_pauses_lists_and_resumes(self) -> None:
        wait_in(5)
        said = run_command("pause", "5", "7", "--reason", "broken consumer", "--by", "ops")
        assert said == "Paused: [5, 7].\n"
        listed = run_command("list").splitlines()
        assert re.match(
            r"lane  5  PAUSED by ops at \S+Z: broken consumer  1 events wait, \d+\.\d s", listed[0]
        )
        assert listed[-1] == "64 lanes, 2 paused, 2 shown."
        assert run_command("resume", "all") == "Resumed: [5, 7].\n"
        assert run_command("list").splitlines()[-1] == "64 lanes, 0 paused, 1 shown."

    @pytest.mark.parametrize("lane", ["64", "five"])
    def test_says_what_is_wrong(self, lane: str) -> None:
        with pytest.raises(CommandError, match=r"[Ll]ane"):
            run_command("pause", lane)


@pytest.mark.django_db
class TestTheAdmin:
    def act(self, client: Client, action: str, *numbers: int, why: str = "why not") -> str:
        form = {
            "action": action,
            "_selected_action": list(numbers),
            "confirmed": "Yes",
            "note": why,
        }
        return client.post(LANES, form, follow=True).content.decode()

    def test_pauses_and_resumes(self) -> None:
        client = log_in()
        asked = self.act(client, "pause", 3, why=" ")
        assert "No drain claims these lanes" in asked
        assert not OutboxLane.objects.filter(paused=True).exists()
        assert "Paused lanes: [3, 9]" in self.act(client, "pause", 3, 9)
        row = OutboxLane.objects.get(lane=9)
        assert (row.paused, row.paused_reason, row.paused_by) == (True, "why not", "operator")
        assert "why not" in client.get(LANES).content.decode()
        assert "Resumed lanes: [9]" in self.act(client, "resume", 9)
        assert list(OutboxLane.objects.filter(paused=True)) == [OutboxLane(lane=3)]

    @pytest.mark.usefixtures("permissions")
    def test_lets_nobody_pause_without_the_permission(self) -> None:
        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.add(
            *viewer.user_permissions.model.objects.filter(codename="view_outboxlane")
        )
        client = Client()
        client.force_login(viewer)
        assert client.get(LANES).status_code == 200
        self.act(client, "pause", 3)
        assert not OutboxLane.objects.filter(paused=True).exists()
