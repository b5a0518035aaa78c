"""Notifications: providers that lie, hang, are slow, away, or ask to wait; senders killed and frozen;
Redis lost; wrong clocks; many at the same moment."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import psutil

from devtools.chaos.ground import Ground
from devtools.chaos.notifications.sending import SENDERS, Messages, sending
from devtools.chaos.scenarios.base import Play, Scenario
from devtools.chaos.scenarios.clocks import demand_the_clock_is_off
from devtools.localstack import Unit
from devtools.provider.server import AnswerRule

__all__ = ["HIGH", "LEASE", "SCENARIOS", "all_delivered", "scenario_of", "wake_slowly"]

LEASE = 15.0  # seconds; notifications/delivery/rounds.py
BREAKER = 30.0
HIGH = "worker-notifications-high"
HOUR = 3600


def lying_provider(ground: Ground) -> None:
    """Answers of every kind, and fifty cancels in the middle of the sends."""
    with sending(ground, within=60) as messages:
        messages.rules(
            AnswerRule(share=0.03, seed=1, do="cut"),
            AnswerRule(share=0.03, seed=2, status=302, headers={"Location": "/elsewhere"}),
            AnswerRule(share=0.03, seed=3, status=503),
            AnswerRule(share=0.2, seed=4, body=""),
            AnswerRule(share=0.2, seed=5, body="<garbage"),
            AnswerRule(share=0.1, seed=6, do="cut_body"),
            AnswerRule(after=0.05),
        )
        with ground.fault("a provider that lies", repeats=False):
            messages.accept(round(ground.seconds(300, 90)))
            messages.cancel_at_once(messages.accept(50))
            elsewhere = [each for each in messages.arrivals() if each.path != "/send"]
            ground.demand(not elsewhere, "a redirect was followed")
        # Nobody with bad luck is waited for.
        ground.wait(partial(_have_been_tried, messages), 60, "a first attempt of each")
        messages.rules()


def slow_provider(ground: Ground) -> None:
    """Every answer takes a second, to the end."""
    with sending(ground, within=120) as messages:
        messages.rules(AnswerRule(after=1.0))
        for _ in range(round(ground.seconds(6, 2))):
            messages.accept(150)
            time.sleep(3)


def provider_away(ground: Ground) -> None:
    """Killed while it has calls in hand, then there again."""
    with sending(ground, within=3 * BREAKER + 60) as messages:
        messages.rules(AnswerRule(after=0.5))
        messages.accept(60)
        messages.until_something_arrives()
        with ground.fault("SIGKILL of the provider", repeats=False), messages.provider_away():
            messages.accept(60)
            time.sleep(ground.seconds(60, 8))
        messages.accept(60)


def hanging_for_one_channel(ground: Ground) -> None:
    """The others go on as if nothing was."""
    with sending(ground, within=3 * BREAKER + 60) as messages:
        messages.rules(AnswerRule(channel="sms", do="hang"))
        with ground.fault("a provider that hangs for one channel", repeats=False):
            messages.accept(150, channels=("sms",))
            messages.until_something_arrives()
            others = set(messages.accept(150, channels=("email", "push")))
            within = ground.wait(partial(_arrived, messages, others), 60, "the other channels")
            ground.figures["other channels"] = f"all sent within {within:.1f} s"
            time.sleep(ground.seconds(20, 5))
        messages.rules()


def asked_to_wait(ground: Ground) -> None:
    """Longer than all attempts of a low one would last."""
    with sending(ground, within=120) as messages:
        wait = round(ground.seconds(20, 4))
        messages.rules(AnswerRule(status=429, headers={"Retry-After": str(wait)}))
        with ground.fault("429 to everybody", repeats=False):
            messages.accept(60)
            messages.accept(60, priority="low")
            time.sleep(ground.seconds(60, 3.5 * wait))
        messages.rules()


def killed_senders(ground: Ground) -> None:
    with sending(ground, within=2 * LEASE + BREAKER + 30) as messages:
        messages.rules(AnswerRule(after=1.0))
        with ground.fault("SIGKILL of senders in their sends", repeats=False):
            for _ in range(2 if ground.quick else 4):
                messages.accept(60)
                messages.until_something_arrives()
                with messages.losing_senders():
                    ground.kill_children(HIGH)


def frozen_sender(ground: Ground) -> None:
    """Beyond its lease, with calls under way, until others have done its work: what it says afterwards
    changes nothing."""
    with ground.another(HIGH) as second, sending(ground, within=LEASE + 60) as messages:
        second.pause()
        messages.rules(AnswerRule(after=1.0))
        ids = set(messages.accept(30))
        ground.wait(lambda: len(messages.arrivals()) >= 10, 30, "ten under way")
        frozen = ground.fault("SIGSTOP of a sender beyond its lease", repeats=False)
        with frozen, messages.losing_senders(), ground.frozen(HIGH):
            second.resume()
            ground.wait(partial(all_delivered, messages, ids), LEASE + 60, "the others' work")
            wake_slowly(ground.unit(HIGH))
        time.sleep(3)


def wake_slowly(unit: Unit) -> None:
    """Its children are awake before the process that ends those which have had their time."""
    for child in psutil.Process(unit.pid).children(recursive=True):
        os.kill(child.pid, signal.SIGCONT)
    time.sleep(3)
    unit.resume()


def emptied_redis(ground: Ground) -> None:
    with sending(ground, within=LEASE + BREAKER + 60) as messages:
        messages.rules(AnswerRule(after=0.2))
        with ground.fault("FLUSHALL in the sends"):
            for _ in range(3):
                messages.accept(150)
                messages.until_something_arrives()
                ground.redis().flushall()
                time.sleep(2)


def lost_redis(ground: Ground) -> None:
    """Killed in the middle of sends, away for a while, and back."""
    with sending(ground, within=LEASE + BREAKER + 90) as messages:
        messages.rules(AnswerRule(after=0.2))
        messages.accept(900)
        messages.until_something_arrives()
        lost = ground.fault("SIGKILL redis in the sends")
        with lost, messages.nobody_there(), ground.away("redis"):
            messages.accept(90, priority="normal")
            time.sleep(ground.seconds(30, 6))
        messages.accept(90)


def clocks_off(ground: Ground) -> None:
    """The senders', which also start what is scheduled and close leases."""
    with sending(ground, within=90) as messages:
        for seconds in (HOUR,) if ground.quick else (HOUR, -HOUR):
            side = "ahead" if seconds > 0 else "behind"
            with (
                ground.fault(f"clocks of all senders an hour {side}", repeats=False),
                ground.changed(SENDERS, CHAOS_CLOCK_SECONDS=str(seconds)),
            ):
                for name in SENDERS:
                    demand_the_clock_is_off(ground, name, seconds)
                _send_by_the_clock(ground, messages)


def _send_by_the_clock(ground: Ground, messages: Messages) -> None:
    """Some fail once, some are for later: both take a time that is in a row."""
    messages.rules(AnswerRule(channel="sms", times=4, status=503))
    messages.accept(30)
    messages.accept(30, after=4.0)
    messages.accept(30, priority="low", after=4.0)
    ground.wait(messages.finished, 60, "all of them")


def scheduled_together(ground: Ground) -> None:
    """For one moment, and fifty of them are cancelled in it."""
    count = 900 if ground.quick else 10_000
    with sending(ground, within=count / 300 + 60) as messages:
        ahead = ground.seconds(20, 6)
        due = time.monotonic() + ahead
        with ground.fault(f"{count} scheduled for the same moment", repeats=False):
            ids = messages.accept(count, after=ahead)
            time.sleep(max(0.0, due - time.monotonic()))
            messages.cancel_at_once(ids[::18][:50])


def high_among_low(ground: Ground) -> None:
    """Twenty seconds' worth of lower ones wait; high ones come and go before them."""
    with sending(ground, within=90) as messages:
        messages.accept(1500, priority="low", channels=("sms",))
        messages.accept(500, priority="normal", channels=("sms",))
        ground.wait(lambda: len(messages.arrivals()) > 100, 30, "lower ones under way")
        for _ in range(12):
            messages.accept(15, channels=("sms",))
            time.sleep(1)


def _have_been_tried(messages: Messages) -> bool:
    left = messages.accepted.keys() - messages.cancelled.keys()
    return left <= {each.key for each in messages.arrivals()}


def _arrived(messages: Messages, ids: set[str]) -> bool:
    return ids <= {each.key for each in messages.arrivals()}


def all_delivered(messages: Messages, ids: set[str]) -> bool:
    found = messages.look()
    return all(found[id_].status == "delivered" for id_ in ids)


def scenario_of(name: str, title: str, play: Play, *, quick: bool = False) -> Scenario:
    """One without the load of orders."""
    return Scenario(name=name, title=title, play=play, rate=0.0, quick=quick, settle_within=60.0)


SCENARIOS = (
    scenario_of(
        "provider-lies",
        "a provider that cuts, redirects, fails and answers garbage; fifty cancels among the sends",
        lying_provider,
        quick=True,
    ),
    scenario_of("provider-slow", "a provider that takes a second for each", slow_provider),
    scenario_of("provider-away", "SIGKILL of a provider, and a new one later", provider_away),
    scenario_of("provider-hangs", "a provider that hangs for one channel", hanging_for_one_channel),
    scenario_of(
        "provider-asks-to-wait", "429 with Retry-After to everybody, again and again", asked_to_wait
    ),
    scenario_of("sender-killed", "SIGKILL of senders in their sends", killed_senders, quick=True),
    scenario_of(
        "sender-frozen", "SIGSTOP of a sender in its sends, beyond its lease", frozen_sender
    ),
    scenario_of(
        "sends-redis-emptied", "FLUSHALL in the middle of sends, three times", emptied_redis
    ),
    scenario_of("sends-redis-lost", "SIGKILL of Redis in the middle of sends", lost_redis),
    scenario_of("sends-clock-off", "the clocks of all senders are an hour off", clocks_off),
    scenario_of(
        "scheduled-together",
        "10,000 (quick: 900) scheduled for the same moment, fifty cancelled in it",
        scheduled_together,
    ),
    scenario_of("high-among-low", "high ones come while 2,000 lower ones wait", high_among_low),
)
