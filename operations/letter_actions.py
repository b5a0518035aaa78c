"""The actions for dead letters on the page: for those of handlers, of apps and of the relay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from operations import relay_letters, words
from operations.action import RATES, Action, ActionRequest, NotNow, Preview, existing
from operations.letters import GroupKey, as_number, group_like, inspect, source_named, standing
from operations.relay_letters import RelayGroup
from operations.runs import begin_relay_run, begin_run, stop_run
from outbox import operator_log
from outbox.dead_letters.resolve import (
    DISCARD,
    REPLAY,
    FollowersWithoutHead,
    Selection,
    resolve_letters,
)
from outbox.models import OperatorAction

__all__ = ["LETTER_ACTIONS", "NO_LETTER", "NO_RELAY_LETTER"]

NO_LETTER = "There is no such dead letter."
NO_RELAY_LETTER = "The letter is not among the first dead letters of the relay. Find others by manage.py rabbitmq_dead_letters."
LETTERS = "outbox.change_deadletter"
_EFFECTS = {
    REPLAY: "are due at once, with all their attempts",
    DISCARD: "are never applied, and are kept for 90 days with the name of who discarded them",
}

_ONE = {
    REPLAY: "It is due at once, with all its attempts",
    DISCARD: "It is never applied, and is kept for 90 days with the name of who discarded it",
}


def _group(on: Sequence[str]) -> GroupKey:
    return existing(group_like("".join(on)), NO_LETTER)


def _group_preview(on: Sequence[str], *, action: str) -> Preview:
    group = _group(on)
    source = source_named(group.handler)
    now = standing(group)
    count = f"{now.letters:,}" if now.whole else f"{now.letters:,} and more"
    notes = [f"The first {len(now.rows)} of them:"] if now.letters > len(now.rows) else []
    behind = f" {now.followers:,} followers are applied after them." if now.followers else ""
    effect = _EFFECTS[action]
    if source is not None:
        effect = "are sent again" if action == REPLAY else "stay failed, and are not shown again"
    return Preview(
        title=f"{action.capitalize()} {count} dead letter{'s' if now.letters != 1 else ''} of "
        f"{group.handler}?",
        sentence=f"They {effect}, at the rate that you choose.{behind} The run continues when this page is closed, "
        "and can be stopped.",
        columns=now.columns,
        rows=now.rows,
        notes=notes,
        rates=RATES,
        nothing="" if now.letters else "None of these is dead any more.",
        permission=source.permission if source is not None else "",
    )


def _begin_run(asked: ActionRequest, *, action: str) -> None:
    begin_run(action, _group(asked.on), asked)


def _letter_id(on: Sequence[str]) -> int:
    return existing(as_number("".join(on)), NO_LETTER)


def _letter_preview(on: Sequence[str], *, action: str) -> Preview:
    letter = existing(inspect(_letter_id(on)), NO_LETTER)
    return Preview(
        title=f"{action.capitalize()} dead letter {letter.id}?",
        sentence=f"{_ONE[action]}. The later events of its key follow it.",
        columns=("id", "handler", "state", "event", "error"),
        rows=[(letter.id, letter.handler, letter.state, letter.event_id, letter.error[:160])],
        nothing="" if letter.is_open else f"It is {letter.state}: there is nothing to do.",
    )


def _resolve_letter(asked: ActionRequest, *, action: str) -> None:
    wanted = Selection(ids=[_letter_id(asked.on)])
    try:
        outcomes = list(
            resolve_letters(action, wanted, by=asked.by, limit=1, note=asked.why, once=asked.once)
        )
    except FollowersWithoutHead as error:
        raise NotNow(str(error)) from error
    if not outcomes:
        raise NotNow("This dead letter is resolved already.")
    if not outcomes[0].done:
        raise NotNow(f"Nothing was done: {outcomes[0].word}.")


def _run(on: Sequence[str]) -> OperatorAction:
    return existing(operator_log.entry(_letter_id(on)), "There is no such run.")


def _stop_preview(on: Sequence[str]) -> Preview:
    run = _run(on)
    of = "" if run.asked is None else f" of {run.asked:,}"
    return Preview(
        title=f"Stop the {run.what} of {run.subject}?",
        sentence="The run takes no further letters. What it has done stays done.",
        columns=("begun by", "because", "done"),
        rows=[(run.by, run.why, f"{run.done:,}{of}")],
        nothing="" if run.ended_at is None else "This run has ended already.",
    )


def _stop(asked: ActionRequest) -> None:
    if not stop_run(_run(asked.on).id, asked):
        raise NotNow("This run has ended already.")


_RELAYED = {
    REPLAY: "They are put into the relay's queue again, and each leaves the dead letters once RabbitMQ has "
    "confirmed it. A message that fails again becomes a new letter, which this run does not take",
    DISCARD: "They are taken out of the dead-letter queue and are gone for good: nothing keeps them",
}
_ONE_RELAYED = {
    REPLAY: "It is put into the relay's queue again, and leaves the dead letters once RabbitMQ has confirmed "
    "it. If it fails again, it becomes a new letter.",
    DISCARD: "It is taken out of the dead-letter queue and is gone for good: nothing keeps it.",
}


def _relay_group(on: Sequence[str]) -> RelayGroup:
    return existing(relay_letters.group_like("".join(on)), NO_RELAY_LETTER)


def _relay_group_preview(on: Sequence[str], *, action: str) -> Preview:
    group = _relay_group(on)
    count = f"{group.letters:,}" if group.whole else f"{group.letters:,} and more"
    return Preview(
        title=f"{action.capitalize()} {count} dead letter{'s' if group.letters != 1 else ''} of the relay?",
        sentence=f"{_RELAYED[action]}. The run has the rate that you choose, continues when this page is closed, and "
        "can be stopped.",
        columns=("id", "event", "failed", "reason"),
        rows=[
            (letter.id, letter.event_id or "–", f"{words.span(letter.age)} ago", letter.shown)
            for letter in group.sample
        ],
        notes=[f"The first {len(group.sample)} of them:"]
        if group.letters > len(group.sample)
        else [],
        rates=RATES,
    )


def _relay_letter_preview(on: Sequence[str], *, action: str) -> Preview:
    letter = existing(relay_letters.inspect("".join(on)), NO_RELAY_LETTER)
    return Preview(
        title=f"{action.capitalize()} this dead letter of the relay?",
        sentence=_ONE_RELAYED[action],
        columns=("id", "event", "failed", "reason"),
        rows=[(letter.id, letter.event_id or "–", f"{words.span(letter.age)} ago", letter.shown)],
    )


def _begin_relay_run(asked: ActionRequest, *, action: str) -> None:
    begin_relay_run(action, _relay_group(asked.on), asked)


def _resolve_relay_letter(asked: ActionRequest, *, action: str) -> None:
    if not relay_letters.resolve_one(action, "".join(asked.on), asked):
        raise NotNow(
            "The relay has no such dead letter any more: somebody else replayed or discarded it."
        )


# What is acted on -> what it would do, and the doing.
_KINDS: dict[str, tuple[Callable[..., Preview], Callable[..., None]]] = {
    "letters": (_group_preview, _begin_run),
    "letter": (_letter_preview, _resolve_letter),
    "relay-letters": (_relay_group_preview, _begin_relay_run),
    "relay-letter": (_relay_letter_preview, _resolve_relay_letter),
}

LETTER_ACTIONS = {
    f"{action}-{kind}": Action(
        action, LETTERS, partial(preview, action=action), partial(do, action=action)
    )
    for kind, (preview, do) in _KINDS.items()
    for action in (REPLAY, DISCARD)
} | {"stop-run": Action("stop", LETTERS, _stop_preview, _stop)}
