"""The rare moments of notifications, made to happen: each is harmless with all guards in place, and shows
the damage when one is broken (mutation.py)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from uuid import UUID

from django.db import connection, transaction

from devtools.chaos.ground import Ground
from devtools.chaos.notifications.misbehave import HELD, STOP
from devtools.chaos.notifications.sending import Messages, sending
from devtools.chaos.scenarios.notifications import (
    HIGH,
    LEASE,
    all_delivered,
    scenario_of,
    wake_slowly,
)
from devtools.provider.server import AnswerRule
from notifications import services
from notifications.letters import EVERYBODY
from notifications.models import Attempt

__all__ = ["SCENARIOS"]

SLOW = 5  # messages a second: a hundred take longer than a lease


def cancel_meets_claim(ground: Ground) -> None:
    """A sender has claimed and not begun yet when all are cancelled."""
    still = ground.fault("a sender stands still behind its claim", repeats=False)
    with sending(ground, within=60) as messages, still:
        ids = _claim_and_hold(ground, messages)
        messages.cancel_at_once(ids)
        ground.switches.off(STOP)
        under_way = Attempt.objects.filter(notification_id__in=ids, outcome=None)
        ground.wait(lambda: not under_way.exists(), 60, "the end of every attempt")


def frozen_before_sends(ground: Ground) -> None:
    """A sender has claimed, and is frozen before it begins, until others have sent what it had."""
    with ground.another(HIGH) as second, sending(ground, within=60) as messages:
        second.pause()
        frozen = ground.fault("SIGSTOP of a sender behind its claim", repeats=False)
        with frozen, messages.losing_senders(in_sends=False):
            ids = set(_claim_and_hold(ground, messages))
            time.sleep(2)  # what its other processes had in hand is written
            with ground.frozen(HIGH):
                ground.switches.off(STOP)
                second.resume()
                ground.wait(partial(all_delivered, messages, ids), LEASE + 60, "the others' work")
                wake_slowly(ground.unit(HIGH))
        time.sleep(3)


def _claim_and_hold(ground: Ground, messages: Messages) -> list[str]:
    """Accept a few; one sender is held behind its claim until the switch is off."""
    ground.switches.off(HELD)
    ground.switches.on(STOP)
    ids = messages.accept(9)
    ground.wait(lambda: ground.switches.is_on(HELD), 30, "a sender behind its claim")
    return ids


def slow_pace(ground: Ground) -> None:
    """Three processes share a limit, and twice as much is ready as it allows for while a lease holds: also
    where a slow machine accepts it little by little."""
    limits = {"RATE_LIMIT_PER_CHANNEL": str(SLOW), "NOTIFICATION_SENDERS": "3"}
    with (
        ground.changed([HIGH], **limits),
        sending(ground, within=120) as messages,
    ):
        messages.limit = float(SLOW)
        messages.accept(SLOW * 30, channels=("sms",))


def five_in_a_row(ground: Ground) -> None:
    """Five failures in a row behind twenty that went well: the breaker stays closed."""
    with sending(ground, within=90) as messages:
        messages.accept(30, channels=("sms",))
        ground.wait(messages.finished, 30, "thirty that go well")
        with ground.fault("five failures in a row", repeats=False):
            messages.rules(AnswerRule(times=5, status=503))
            failing = set(messages.accept(5, channels=("sms",)))
            ground.wait(lambda: _tried(messages, failing) == 5, 30, "five that fail")
            time.sleep(1)  # their results are counted
        messages.accept(30, channels=("sms",))


def _tried(messages: Messages, ids: set[str]) -> int:
    return len(ids & {each.key for each in messages.arrivals()})


def commit_out_of_order(ground: Ground) -> None:
    """A change is made first and committed last. Meanwhile the only client of the stream goes, and comes
    back with the number that it saw last."""
    with sending(ground, within=60) as messages, ExitStack() as away:
        [first] = messages.accept(1, channels=("sms",), after=3600.0)
        with ground.fault("a commit comes late", repeats=False):
            with transaction.atomic():
                services.cancel([UUID(first)], owner=EVERYBODY)
                later = set(messages.accept(9))
                ground.wait(partial(_all_heard, messages, later), 30, "what is committed before it")
                away.enter_context(messages.stream.away())
            messages.cancelled[first] = time.monotonic()
            sql = "SELECT 1 FROM notification_status_log WHERE notification_id = %s AND seq > 0"
            ground.wait(lambda: bool(ground.evidence.rows(sql, (first,))), 30, "its number")


def _all_heard(messages: Messages, ids: set[str]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")  # the transaction is open, and not idle
    heard = messages.stream.statuses()
    return all(heard.get(id_) == "delivered" for id_ in ids)


SCENARIOS = (
    scenario_of(
        "cancel-meets-claim",
        "a cancel between a sender's claim and its call",
        cancel_meets_claim,
        quick=True,
    ),
    scenario_of(
        "frozen-before-sends",
        "a sender wakes behind its claim, when others have sent what it had",
        frozen_before_sends,
    ),
    scenario_of(
        "slow-pace",
        "three processes send 150 at five a second, longer than a lease",
        slow_pace,
    ),
    scenario_of("five-in-a-row", "five failures in a row behind twenty successes", five_in_a_row),
    scenario_of(
        "commit-out-of-order",
        "a change of status is committed behind later ones, while a client of the stream is away",
        commit_out_of_order,
        quick=True,
    ),
)
