"""What the provider's log says of time: the limit, waits that were asked for, pauses, who came first."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from devtools.chaos.notifications.history import SendHistory
from devtools.provider.server import Arrival

__all__ = [
    "ahead_of_the_limit",
    "behind_lower",
    "idle_without_reason",
    "longest_idle",
    "longest_of_high",
    "most_in_a_second",
    "not_waited_for",
    "out_of_its_time",
    "pending_after",
    "waits",
]

# An answer that asks to wait is heard by all senders after so many seconds: its result is written, and
# what was claimed before that is sent.
HEARD_WITHIN = 2.0
# A machine that stands still lets through at once what was paced before it: two seconds' worth at most.
AHEAD_SECONDS = 2.0
IDLE_SECONDS = 15.0  # a pause of a channel that needs a reason; half of what a breaker is open
BREAKER_SECONDS = 30.0 + 8.0  # that it is open (contract), and until a probe arrives
RULE_RUN, RULE_WINDOW, RULE_SHARE = 5, 20, 0.5  # of a breaker (contract)
READY_WITHIN = 5.0  # from the answer to a POST until it waits for its turn, on a busy machine
PENDING_WITHIN = 15.0  # of its schedule, on a busy machine; the contract says one second
BESIDE = 5  # lower ones that may pass by while a high one is claimed

Span = tuple[float, float]


def waits(history: SendHistory) -> list[tuple[Arrival, float]]:
    """Arrivals whose answer asked to wait, and for how many seconds."""
    return [
        (arrival, float(arrival.retry_after))
        for arrival in history.arrivals
        if arrival.status in (429, 503) and arrival.retry_after and arrival.answered_at
    ]


def not_waited_for(history: SendHistory) -> Iterator[str]:
    """N6. Nothing of the channel is begun until the time is over, but what was under way."""
    times = {
        channel: [arrival.at for arrival in arrivals]
        for channel, arrivals in _by_channel(history).items()
    }
    for arrival, seconds in waits(history):
        at = arrival.answered_at
        early = _between(times[arrival.channel], at + HEARD_WITHIN, at + seconds - 0.2)
        if early:
            yield f"{early} of {arrival.channel} were begun within the {seconds:g} s that were asked for"


def most_in_a_second(history: SendHistory) -> int:
    """Of any channel."""
    most = 0
    for arrivals in _by_channel(history).values():
        times = [arrival.at for arrival in arrivals]
        most = max(most, *(bisect_left(times, at + 1.0) - i for i, at in enumerate(times)))
    return most


def ahead_of_the_limit(history: SendHistory) -> Iterator[str]:
    """N7. In no stretch of time have more of a channel arrived than its limit allows for it, but for what
    a machine that stood still lets through at once."""
    for channel, arrivals in _by_channel(history).items():
        ahead = worst = 0.0
        before = arrivals[0].at
        for arrival in arrivals:
            ahead = max(0.0, ahead - (arrival.at - before) * history.limit) + 1
            before, worst = arrival.at, max(worst, ahead)
        if worst > AHEAD_SECONDS * history.limit:
            yield f"{channel} was {worst:.0f} messages ahead of {history.limit:g} a second"


def idle_without_reason(history: SendHistory) -> Iterator[str]:
    """N8. A channel for which something waits does not pause, unless its provider asked to wait or has
    failed as the breaker's rule says, or something was not there."""
    for channel, (begin, end) in _pauses(history):
        if end - begin <= IDLE_SECONDS:
            continue
        reasons = [*history.away, *((each.begin, each.end + 20.0) for each in history.lost)]
        reasons += _asked_or_open(history, channel)
        if not any(start < end and stop > begin for start, stop in reasons):
            yield f"nothing of {channel} was sent for {end - begin:.0f} s, and nothing was wrong"


def longest_idle(history: SendHistory) -> float:
    """Seconds in which something waited and nothing of its channel was begun."""
    return max((end - begin for _, (begin, end) in _pauses(history)), default=0.0)


def _pauses(history: SendHistory) -> Iterator[tuple[str, Span]]:
    """Pauses of more than a second between two arrivals of a channel, as far as one that had not
    arrived yet waited."""
    first = {id_: arrivals[0].at for id_, arrivals in history.arrived().items()}
    for channel, arrivals in _by_channel(history).items():
        waiting = [
            (one.at if one.due is None else max(one.at, one.due), first[id_])
            for id_, one in history.accepted.items()
            if one.channel == channel and id_ in first
        ]
        times = [arrival.at for arrival in arrivals]
        for begin, end in zip([float("-inf"), *times], times, strict=False):
            if end - begin > 1.0:
                since = min((a for a, b in waiting if a < end <= b), default=end)
                if (start := max(begin, since)) < end:
                    yield channel, (start, end)


def _asked_or_open(history: SendHistory, channel: str) -> list[Span]:
    """When the channel's provider had asked to wait, or its breaker may be open by the rule."""
    found = [
        (arrival.answered_at, arrival.answered_at + seconds * 1.1 + 3.0)
        for arrival, seconds in waits(history)
        if arrival.channel == channel
    ]
    outcomes: list[bool] = []
    arrivals = sorted(_by_channel(history)[channel], key=history.ended)
    for arrival in arrivals:
        if 400 <= arrival.status < 500 and arrival.status not in (401, 403, 407, 408):
            continue  # about the message
        outcomes.append(history.is_taken(arrival))
        window = outcomes[-RULE_WINDOW:]
        failed = window.count(False)
        in_a_row = len(outcomes) >= RULE_RUN and not any(outcomes[-RULE_RUN:])
        if in_a_row and failed >= RULE_SHARE * len(window):
            at = history.ended(arrival)
            found.append((at - 1.0, at + BREAKER_SECONDS))
    return found


def behind_lower(history: SendHistory) -> Iterator[str]:
    """N9. While a high one waits, more of its own than of the lower ones are begun in its channel."""
    for channel, (own, lower) in _firsts(history).items():
        for id_, accepted_at, at in _highs(history, channel):
            ready = accepted_at + READY_WITHIN
            if at <= ready or any(start < at and end > accepted_at for start, end in history.away):
                continue
            passed = _between(lower, ready, at)
            if passed > _between(own, ready, at) + BESIDE:
                yield f"{id_} waited {at - accepted_at:.1f} s while {passed} lower ones were begun"


def longest_of_high(history: SendHistory) -> float:
    """Seconds from the answer to the first arrival of a high one."""
    return max(
        (
            at - accepted_at
            for channel in _by_channel(history)
            for _, accepted_at, at in _highs(history, channel)
        ),
        default=0.0,
    )


def _firsts(history: SendHistory) -> dict[str, tuple[list[float], list[float]]]:
    """By channel, when high ones and when lower ones arrived for the first time."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for id_, arrivals in history.arrived().items():
        if (one := history.accepted.get(id_)) is not None:
            times = found.setdefault(one.channel, ([], []))
            times[one.priority != "high"].append(arrivals[0].at)
    for own, lower in found.values():
        own.sort()
        lower.sort()
    return found


def _highs(history: SendHistory, channel: str) -> Iterator[tuple[str, float, float]]:
    """High ones that were not scheduled: id, accepted, arrived."""
    arrived = history.arrived()
    for id_, one in history.accepted.items():
        if one.channel == channel and one.priority == "high" and one.due is None and id_ in arrived:
            yield id_, one.at, arrived[id_][0].at


def pending_after(history: SendHistory) -> dict[str, float]:
    """Seconds from its schedule until each became pending, by the stream."""
    due = {id_: one.due for id_, one in history.accepted.items() if one.due is not None}
    found: dict[str, float] = {}
    for change in history.changes:
        if change.status == "pending" and change.id in due:
            found.setdefault(change.id, change.at - due[change.id])
    return found


def out_of_its_time(history: SendHistory) -> Iterator[str]:
    """N11. What is scheduled is not begun before its time, and pending soon after it."""
    for id_, seconds in pending_after(history).items():
        if seconds > PENDING_WITHIN:
            yield f"{id_} was pending {seconds:.1f} s after its time"
    for id_, arrivals in history.arrived().items():
        one = history.accepted.get(id_)
        if one is not None and one.due is not None and arrivals[0].at < one.due - 0.05:
            yield f"{id_} was begun {one.due - arrivals[0].at:.2f} s before its time"


def _by_channel(history: SendHistory) -> dict[str, list[Arrival]]:
    found: dict[str, list[Arrival]] = {}
    for arrival in sorted(history.arrivals, key=lambda each: each.at):
        one = history.accepted.get(arrival.key)
        channel = one.channel if one is not None else arrival.channel
        found.setdefault(channel, []).append(arrival)
    return found


def _between(times: Sequence[float], begin: float, end: float) -> int:
    """How many of these, which are sorted, are inside."""
    return max(0, bisect_left(times, end) - bisect_right(times, begin)) if end > begin else 0
