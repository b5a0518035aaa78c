"""The actions that pause and resume handlers, lanes and channels, and the one that closes a breaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from django.db import OperationalError

from notifications.delivery.channels import (
    channel_statuses,
    pause_channel,
    resume_channel,
)
from notifications.delivery.standing import reset_breaker, standings
from notifications.models import ChannelControl
from operations import words
from operations.action import Action, ActionRequest, NoSuch, NotNow, Preview
from outbox import conf
from outbox.handlers.pause import handler_statuses, pause_handler, resume_handler
from outbox.lanes.pause import LaneBusy, lane_states, pause_lanes, resume_lanes
from outbox.models import HandlerControl

__all__ = ["SWITCHES"]

HANDLERS = "outbox.change_handlercontrol"
LANES = "outbox.change_outboxlane"
BREAKERS = "notifications.change_providerhold"
CHANNELS = "notifications.change_channelcontrol"
EVERY_LANE = "all"


def _handler(on: Sequence[str]) -> str:
    try:
        return conf.route_named("".join(on)).handler
    except LookupError as error:
        raise NoSuch(f"There is no handler {''.join(on)!r}.") from error


def _handler_preview(on: Sequence[str], *, paused: bool) -> Preview:
    handler = _handler(on)
    [status] = handler_statuses([handler])
    if paused:
        closed = " Its circuit is closed, and the events that it parked are tried again at once."
        sentence = f"It goes on where it stopped.{closed if status.tripped else ''}"
    else:
        kept = words.span(conf.route_named(handler).topic.retention_hours * 3600)
        sentence = (
            "The handler applies nothing until it is resumed. Running effects end first, its positions "
            f"stay, and events wait in Kafka, which keeps them for {kept}. Nothing is lost before that."
        )
    return _preview("handler", handler, status, sentence, paused=paused)


def _preview(
    kind: str, name: str, status: HandlerControl | ChannelControl, sentence: str, *, paused: bool
) -> Preview:
    standing, nothing = "paused" if status.paused else "running", ""
    if status.paused != paused:
        since = f" already, by {status.changed_by}: {status.reason}" if status.paused else "."
        nothing = f"{name} is {standing}{since}"
    return Preview(
        title=f"{'Resume' if paused else 'Pause'} {name}?",
        sentence=sentence,
        columns=(kind, "standing", "reason", "by"),
        rows=[(name, standing, status.reason, status.changed_by)],
        nothing=nothing,
    )


def _change_handler(asked: ActionRequest, *, paused: bool) -> None:
    change = resume_handler if paused else pause_handler
    try:
        change(_handler(asked.on), reason=asked.why, by=asked.by, once=asked.once)
    except OperationalError as error:
        raise NotNow(
            "Nothing was changed: a running effect holds the handler's position. Try again."
        ) from error


def _lanes(on: Sequence[str]) -> list[int]:
    known = [state.lane for state in lane_states(counted=0)]
    if list(on) == [EVERY_LANE]:
        return known
    wanted = {int(each) for each in on if each.isascii() and each.isdigit()}
    if not wanted or len(wanted) != len(set(on)) or wanted - set(known):
        raise NoSuch("There is no such lane. Choose lanes by their numbers.")
    return sorted(wanted)


def _lanes_preview(on: Sequence[str], *, paused: bool) -> Preview:
    wanted = set(_lanes(on))
    states = [state for state in lane_states() if state.lane in wanted]
    word = "resume" if paused else "pause"
    about = [state for state in states if state.paused == paused]
    return Preview(
        title=f"{word.capitalize()} {len(about)} lane{'s' if len(about) != 1 else ''}?",
        sentence="Drains claim the lanes again and send their waiting events in order."
        if paused
        else "No drain claims the lanes until they are resumed. Their events wait in the outbox, in order. "
        "If a drain holds one of them, the action waits up to ten seconds.",
        columns=("lane", "standing", "waits", "oldest", "reason", "by"),
        rows=[
            (
                state.lane,
                "paused" if state.paused else "running",
                words.count(state.pending, stopped_at=1000),
                words.span(state.oldest_seconds) if state.pending else "–",
                state.reason,
                state.by,
            )
            for state in about
        ],
        nothing="" if about else f"None of these is {'paused' if paused else 'running'}.",
    )


def _change_lanes(asked: ActionRequest, *, paused: bool) -> None:
    change = resume_lanes if paused else pause_lanes
    try:
        change(_lanes(asked.on), by=asked.by, reason=asked.why, once=asked.once)
    except LaneBusy as error:
        raise NotNow(str(error)) from error


def _breaker(on: Sequence[str]) -> tuple[str, str]:
    provider, _, channel = "".join(on).rpartition("/")
    return provider, channel


def _reset_preview(on: Sequence[str]) -> Preview:
    found = [each for each in standings() if (each.provider, each.channel) == _breaker(on)]
    if not found:
        raise NoSuch(f"There is no provider {''.join(on)!r}.")
    [standing_now] = found
    waits = standing_now.held_for
    return Preview(
        title=f"Reset {standing_now.provider} for {standing_now.channel}?",
        sentence="All workers close its breaker, end the wait that it asked for and call it "
        "again. If it still fails, its breaker opens again.",
        columns=("provider", "channel", "breaker", "asks to wait"),
        rows=[
            (
                standing_now.provider,
                standing_now.channel,
                standing_now.breaker,
                words.span(waits) if waits else "–",
            )
        ],
    )


def _reset(asked: ActionRequest) -> None:
    provider, channel = _breaker(asked.on)
    if not reset_breaker(provider, channel, who=asked.by, reason=asked.why, once=asked.once):
        raise NotNow(
            "Redis does not answer, so no worker got the reset. Try again when Redis answers."
        )


def _channel(on: Sequence[str]) -> ChannelControl:
    for status in channel_statuses():
        if [status.channel] == list(on):
            return status
    raise NoSuch(f"There is no channel {''.join(on)!r}.")


def _channel_preview(on: Sequence[str], *, paused: bool) -> Preview:
    status = _channel(on)
    sentence = (
        "Waiting notifications are sent, the oldest first, as fast as the limit of the channel allows."
        if paused
        else "No notification of the channel is sent until it is resumed; attempts that have begun end first. "
        "Requests are accepted and wait. A notification whose time is over meanwhile fails."
    )
    return _preview("channel", status.channel, status, sentence, paused=paused)


def _change_channel(asked: ActionRequest, *, paused: bool) -> None:
    change = resume_channel if paused else pause_channel
    try:
        change(_channel(asked.on).channel, reason=asked.why, by=asked.by, once=asked.once)
    except OperationalError as error:
        raise NotNow(
            "Nothing was changed: a worker is claiming notifications. Try again."
        ) from error


# What can be paused and resumed. `paused`: it is now.
_PAUSED: tuple[tuple[str, str, Callable[..., Preview], Callable[..., None]], ...] = (
    ("handler", HANDLERS, _handler_preview, _change_handler),
    ("lanes", LANES, _lanes_preview, _change_lanes),
    ("channel", CHANNELS, _channel_preview, _change_channel),
)

SWITCHES = {
    f"{verb}-{what}": Action(
        verb,
        permission,
        partial(preview, paused=verb == "resume"),
        partial(do, paused=verb == "resume"),
    )
    for what, permission, preview, do in _PAUSED
    for verb in ("pause", "resume")
} | {
    "reset-breaker": Action("reset", BREAKERS, _reset_preview, _reset),
}
