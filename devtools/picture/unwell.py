"""Much is wrong, and somebody is at it: rows that make each page show what it can. Needs Django to be set up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from notifications.delivery.channels import pause_channel
from notifications.models import ChannelControl
from operations import past, runs
from operations.action import ActionRequest
from operations.letters import group_like
from operations.past import MinuteFigures
from outbox.handlers.pause import pause_handler, register_handlers
from outbox.lanes.pause import pause_lanes
from outbox.models import DeadLetter, HandlerControl, OutboxEvent, OutboxLane

__all__ = ["make_unwell"]

EVENT = UUID("0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f")
LONG = "ValueError: " + "quantity_of_a_line_must_be_a_positive_number, " * 6


def make_unwell() -> Mapping[str, str]:
    """Write the rows; the pages that then have something to show, each by a short name."""
    register_handlers(["record_sales"])
    event = OutboxEvent.objects.create(
        event_id=EVENT,
        lane=1,
        topic="order-events",
        key="k" * 200,
        type="ORDER_CREATED",
        source="/orders",
        payload="{}",
    )
    ids = [
        DeadLetter.objects.create(
            handler="record_sales",
            event_id=event.event_id if number == 0 else uuid4(),
            topic="order-events",
            key=f"key {number}",
            state=DeadLetter.State.DEAD,
            attempts=4,
            error=LONG,
            payload='{"order_id": "6f2", "password": "secret"}',
        ).id
        for number in range(3)
    ]
    group = group_like(str(ids[-1]))
    assert group is not None
    run = runs.begin_run("replay", group, ActionRequest(by="ada", why="mended " * 20, rate=1))
    pause_handler("record_sales", reason="a bad release", by="ada")
    pause_channel("sms", reason="a bad text", by="ada")
    pause_lanes([3], reason="a bad key", by="ada")
    _since(datetime.now(UTC) - timedelta(hours=2))
    _past()
    return {
        "ops": "/ops/?span=day",
        "letters": "/ops/letters",
        "letter": f"/ops/letters/{ids[0]}",
        "lanes": "/ops/lanes",
        "journey": f"/ops/journey?id={EVENT}",
        "run": f"/ops/done/{run}",
        "replay-letters": f"/ops/act/replay-letters?on={ids[-1]}",
        "discard-letter": f"/ops/act/discard-letter?on={ids[0]}",
        "stop-run": f"/ops/act/stop-run?on={run}",
        "resume-channel": "/ops/act/resume-channel?on=sms",
        "resume-handler": "/ops/act/resume-handler?on=record_sales",
        "pause-handler": "/ops/act/pause-handler?on=record_sales",
        "resume-lanes": "/ops/act/resume-lanes?on=3",
    }


def _since(moment: datetime) -> None:
    """It has been so for long enough for the alarms."""
    OutboxEvent.objects.update(created_at=moment)
    DeadLetter.objects.update(created_at=moment, failed_at=moment)
    HandlerControl.objects.filter(paused=True).update(changed_at=moment)
    ChannelControl.objects.filter(paused=True).update(changed_at=moment)
    OutboxLane.objects.filter(paused=True).update(paused_at=moment)


def _past() -> None:
    """Forty minutes of it, with an alarm."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    for ago in range(1, 40):
        alarms = {"handlers: record_sales/HandlerPaused": 60.0} if ago < 9 else {}
        series = {"pipeline/outbox#waits": float(ago % 7), "pipeline/accepted#done": 9.0 * -ago}
        past.write(minute - timedelta(minutes=ago), MinuteFigures(series=series, alarms=alarms))
