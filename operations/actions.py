"""What can be done on the page, each with a look at what it would do.

An action is named in the address, what it acts on stands in the query. A preview reads and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import OperationalError

from notifications.delivery.standing import UnknownProvider, reset_breaker, standings
from operations import words
from operations.letters import Group, as_number, group_like, inspect, source_named, standing
from operations.runs import RATES, begin_run, stop_run
from outbox import conf, operator_log
from outbox.dead_letters.resolve import (
    DISCARD,
    REPLAY,
    FollowersWithoutHead,
    Selection,
    resolve_letters,
)
from outbox.handlers.pause import handler_statuses, pause_handler, resume_handler
from outbox.lanes.pause import LaneBusy, UnknownLane, lane_states, pause_lanes, resume_lanes

__all__ = ["ACTIONS", "Action", "Asked", "NoSuch", "NotNow", "Preview"]

HANDLERS = "outbox.change_handlercontrol"
LANES = "outbox.change_outboxlane"
LETTERS = "outbox.change_deadletter"
BREAKERS = "notifications.change_providerhold"
EVERY_LANE = "all"
_BUSY = "An effect holds its position; nothing was changed, try again."


class NoSuch(LookupError):
    """There is nothing of this name to act on."""


class NotNow(RuntimeError):
    """It cannot be done as things stand; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action would do. `sentence`: what comes of it; `columns` and `rows`: what it is about, as
    it stands; `nothing`: why there is nothing to do; `permission`: where another than the action's."""

    title: str
    sentence: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    notes: Sequence[str] = ()
    rates: Sequence[int] = ()
    nothing: str = ""
    permission: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who has confirmed it, and why. `once`: of the form."""

    on: Sequence[str]
    by: str
    why: str
    once: UUID
    rate: int = RATES[0]


@dataclass(frozen=True, slots=True)
class Action:
    """`do` raises NotNow, DoneAlready, NoSuch; so may `preview` the last."""

    verb: str
    permission: str
    preview: Callable[[Sequence[str]], Preview]
    do: Callable[[Asked], object]


def _handler(on: Sequence[str]) -> str:
    try:
        return conf.route_named("".join(on)).handler
    except LookupError as error:
        raise NoSuch(f"There is no handler {''.join(on)!r}.") from error


def _pause_preview(on: Sequence[str]) -> Preview:
    handler = _handler(on)
    [status] = handler_statuses([handler])
    kept = words.span(conf.route_named(handler).topic.retention_hours * 3600)
    return Preview(
        title=f"Pause {handler}?",
        sentence="Nothing of it is applied until it is resumed: effects that run end first, its positions "
        f"stay, and events wait in Kafka, which keeps them for {kept}. Nothing is lost before that.",
        columns=("handler", "standing", "reason", "by"),
        rows=[_of_handler(handler)],
        nothing=f"{handler} is paused already, by {status.changed_by}: {status.reason}"
        if status.paused
        else "",
    )


def _of_handler(handler: str) -> Sequence[object]:
    [status] = handler_statuses([handler])
    return handler, "paused" if status.paused else "running", status.reason, status.changed_by


def _resume_preview(on: Sequence[str]) -> Preview:
    handler = _handler(on)
    [status] = handler_statuses([handler])
    circuit = (
        " Its circuit is closed, and what it parked is tried again at once."
        if status.tripped
        else ""
    )
    return Preview(
        title=f"Resume {handler}?",
        sentence=f"It goes on where it stopped.{circuit}",
        columns=("handler", "standing", "reason", "by"),
        rows=[_of_handler(handler)],
        nothing="" if status.paused else f"{handler} is running.",
    )


def _pause(asked: Asked) -> None:
    try:
        pause_handler(_handler(asked.on), reason=asked.why, by=asked.by, once=asked.once)
    except OperationalError as error:
        raise NotNow(_BUSY) from error


def _resume(asked: Asked) -> None:
    try:
        resume_handler(_handler(asked.on), reason=asked.why, by=asked.by, once=asked.once)
    except OperationalError as error:
        raise NotNow(_BUSY) from error


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


_EFFECTS = {
    REPLAY: "are due at once, with all their tries",
    DISCARD: "are never applied, and are kept with who did it for 90 days",
}

_ONE = {
    REPLAY: "It is due at once, with all its tries",
    DISCARD: "It is never applied, and is kept with who did it for 90 days",
}


def _group(on: Sequence[str]) -> Group:
    found = group_like("".join(on))
    if found is None:
        raise NoSuch("There is no such dead letter.")
    return found


def _group_preview(on: Sequence[str], *, action: str) -> Preview:
    group = _group(on)
    source = source_named(group.handler)
    now = standing(group)
    count = f"{now.letters:,}" if now.whole else f"{now.letters:,} and more"
    notes = [f"The first {len(now.rows)} of them:"] if now.letters > len(now.rows) else []
    behind = f" {now.followers:,} letters behind them go on after them." if now.followers else ""
    effect = _EFFECTS[action]
    if source is not None:
        effect = "are sent again" if action == REPLAY else "stay failed, and are not shown again"
    return Preview(
        title=f"{action.capitalize()} {count} dead letter{'s' if now.letters != 1 else ''} of "
        f"{group.handler}?",
        sentence=f"They {effect}, at the rate that you choose.{behind} It goes on when this page is closed, "
        "and can be stopped.",
        columns=now.columns,
        rows=now.rows,
        notes=notes,
        rates=RATES,
        nothing="" if now.letters else "None of these is dead any more.",
        permission=source.permission if source is not None else "",
    )


def _begin_run(asked: Asked, *, action: str) -> None:
    begin_run(
        action, _group(asked.on), by=asked.by, why=asked.why, rate=asked.rate, once=asked.once
    )


def _letter_id(on: Sequence[str]) -> int:
    number = as_number("".join(on))
    if number is None:
        raise NoSuch("There is no such dead letter.")
    return number


def _letter_preview(on: Sequence[str], *, action: str) -> Preview:
    letter = inspect(_letter_id(on))
    if letter is None:
        raise NoSuch("There is no such dead letter.")
    return Preview(
        title=f"{action.capitalize()} dead letter {letter.id}?",
        sentence=f"{_ONE[action]}. What waits behind it, of its key, goes on after it.",
        columns=("id", "handler", "state", "event", "error"),
        rows=[(letter.id, letter.handler, letter.state, letter.event_id, letter.error[:160])],
        nothing="" if letter.is_open else f"It is {letter.state}: there is nothing to do.",
    )


def _resolve_letter(asked: Asked, *, action: str) -> None:
    wanted = Selection(ids=[_letter_id(asked.on)])
    try:
        outcomes = list(
            resolve_letters(action, wanted, by=asked.by, limit=1, note=asked.why, once=asked.once)
        )
    except FollowersWithoutHead as error:
        raise NotNow(str(error)) from error
    if not outcomes:
        raise NotNow("It is resolved already.")
    if not outcomes[0].done:
        raise NotNow(f"Nothing was done: {outcomes[0].word}.")


def _run(on: Sequence[str]) -> operator_log.Entry:
    found = operator_log.entry(_letter_id(on))
    if found is None:
        raise NoSuch("There is no such run.")
    return found


def _stop_preview(on: Sequence[str]) -> Preview:
    run = _run(on)
    of = "" if run.asked is None else f" of {run.asked:,}"
    return Preview(
        title=f"Stop the {run.what} of {run.subject}?",
        sentence="No further letters are taken. What has been done stays done.",
        columns=("begun by", "because", "done"),
        rows=[(run.by, run.why, f"{run.done:,}{of}")],
        nothing="" if run.ended_at is None else "It has ended.",
    )


def _stop(asked: Asked) -> None:
    if not stop_run(_run(asked.on).id, by=asked.by, why=asked.why, once=asked.once):
        raise NotNow("It has ended.")


def _of_groups(action: str) -> Action:
    return Action(
        action,
        LETTERS,
        lambda on: _group_preview(on, action=action),
        lambda asked: _begin_run(asked, action=action),
    )


def _of_letters(action: str) -> Action:
    return Action(
        action,
        LETTERS,
        lambda on: _letter_preview(on, action=action),
        lambda asked: _resolve_letter(asked, action=action),
    )


def _of_lanes(verb: str, *, paused: bool) -> Action:
    return Action(
        verb,
        LANES,
        lambda on: _lanes_preview(on, paused=paused),
        lambda asked: _change_lanes(asked, paused=paused),
    )


ACTIONS: Mapping[str, Action] = {
    "pause-handler": Action("pause", HANDLERS, _pause_preview, _pause),
    "resume-handler": Action("resume", HANDLERS, _resume_preview, _resume),
    "pause-lanes": _of_lanes("pause", paused=False),
    "resume-lanes": _of_lanes("resume", paused=True),
    "reset-breaker": Action("reset", BREAKERS, _reset_preview, _reset),
    "replay-letters": _of_groups(REPLAY),
    "discard-letters": _of_groups(DISCARD),
    "replay-letter": _of_letters(REPLAY),
    "discard-letter": _of_letters(DISCARD),
    "stop-run": Action("stop", LETTERS, _stop_preview, _stop),
}
