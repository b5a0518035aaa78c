"""What can be stopped and started on the page: handlers, lanes, channels; and breakers, which are closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from django.db import OperationalError

from notifications.delivery.channels import (
    ChannelStatus,
    UnknownChannel,
    channel_statuses,
    pause_channel,
    resume_channel,
)
from notifications.delivery.standing import UnknownProvider, reset_breaker, standings
from operations import words
from operations.action import Action, Asked, NoSuch, NotNow, Preview
from outbox import conf
from outbox.handlers.pause import HandlerStatus, handler_statuses, pause_handler, resume_handler
from outbox.lanes.pause import LaneBusy, UnknownLane, lane_states, pause_lanes, resume_lanes

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
        closed = " Its circuit is closed, and what it parked is tried again at once."
        sentence = f"It goes on where it stopped.{closed if status.tripped else ''}"
        nothing = "" if status.paused else f"{handler} is running."
    else:
        kept = words.span(conf.route_named(handler).topic.retention_hours * 3600)
        sentence = (
            "Nothing of it is applied until it is resumed: effects that run end first, its positions "
            f"stay, and events wait in Kafka, which keeps them for {kept}. Nothing is lost before that."
        )
        since = f"{handler} is paused already, by {status.changed_by}: {status.reason}"
        nothing = since if status.paused else ""
    return Preview(
        title=f"{'Resume' if paused else 'Pause'} {handler}?",
        sentence=sentence,
        columns=("handler", "standing", "reason", "by"),
        rows=[_standing(handler, status)],
        nothing=nothing,
    )


def _standing(name: str, status: HandlerStatus | ChannelStatus) -> Sequence[object]:
    return name, "paused" if status.paused else "running", status.reason, status.changed_by


def _change_handler(asked: Asked, *, paused: bool) -> None:
    change = resume_handler if paused else pause_handler
    try:
        change(_handler(asked.on), reason=asked.why, by=asked.by, once=asked.once)
    except OperationalError as error:
        raise NotNow("An effect holds its position; nothing was changed, try again.") from error


def _lanes(on: Sequence[str]) -> list[int]:
    known = [state.lane for state in lane_states(counted=0)]
    if list(on) == [EVERY_LANE]:
        return known
    wanted = {int(each) for each in on if each.isascii() and each.isdigit()}
    if not wanted or len(wanted) != len(set(on)) or wanted - set(known):
        raise NoSuch("Choose lanes that there are, by their numbers.")
    return sorted(wanted)


def _lanes_preview(on: Sequence[str], *, paused: bool) -> Preview:
    wanted = set(_lanes(on))
    states = [state for state in lane_states() if state.lane in wanted]
    word = "resume" if paused else "pause"
    about = [state for state in states if state.paused == paused]
    return Preview(
        title=f"{word.capitalize()} {len(about)} lane{'s' if len(about) != 1 else ''}?",
        sentence="Drains claim them again, and what waits in them goes out in its order."
        if paused
        else "No drain claims them until they are resumed: their events wait in the outbox, in their order. "
        "It waits up to ten seconds for a drain that holds one.",
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


def _change_lanes(asked: Asked, *, paused: bool) -> None:
    change = resume_lanes if paused else pause_lanes
    try:
        change(_lanes(asked.on), by=asked.by, reason=asked.why, once=asked.once)
    except LaneBusy as error:
        raise NotNow(str(error)) from error
    except UnknownLane as error:
        raise NoSuch(str(error)) from error


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
        sentence="Its breaker is closed and what it asked to wait is ended, for all workers at once: it is "
        "called again. If it still fails, its breaker opens again.",
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


def _reset(asked: Asked) -> None:
    provider, channel = _breaker(asked.on)
    try:
        stored = reset_breaker(provider, channel, who=asked.by, reason=asked.why, once=asked.once)
    except UnknownProvider as error:
        raise NoSuch(str(error)) from error
    if not stored:
        raise NotNow("Redis is lost: no worker has heard of the reset. Try again later.")


def _channel(on: Sequence[str]) -> ChannelStatus:
    for status in channel_statuses():
        if [status.channel] == list(on):
            return status
    raise NoSuch(f"There is no channel {''.join(on)!r}.")


def _channel_preview(on: Sequence[str], *, paused: bool) -> Preview:
    status = _channel(on)
    since = f", by {status.changed_by}: {status.reason}" if status.paused else ""
    return Preview(
        title=f"{'Resume' if paused else 'Pause'} {status.channel}?",
        sentence="What waits is sent, the longest waiting first, as fast as the limit lets it."
        if paused
        else "No notification of it is sent until it is resumed; those that are being sent go to their end. "
        "Requests are accepted and wait, but what is over its time meanwhile fails.",
        columns=("channel", "standing", "reason", "by"),
        rows=[_standing(status.channel, status)],
        nothing=""
        if status.paused == paused
        else f"{status.channel} is {f'paused already{since}' if status.paused else 'running'}.",
    )


def _change_channel(asked: Asked, *, paused: bool) -> None:
    change = resume_channel if paused else pause_channel
    try:
        change(_channel(asked.on).channel, reason=asked.why, by=asked.by, once=asked.once)
    except UnknownChannel as error:
        raise NoSuch(str(error)) from error
    except OperationalError as error:
        raise NotNow("A claim takes too long; nothing was changed, try again.") from error


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
