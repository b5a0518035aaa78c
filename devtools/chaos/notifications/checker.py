"""The checker of notifications: judges what was accepted, sent and answered. No I/O.

The provider's own log says what was begun and what it said to it; the rest is what the API answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from devtools.chaos.checker import EXAMPLES, Verdict
from devtools.chaos.notifications import timing
from devtools.chaos.notifications.history import Lost, SendHistory
from devtools.provider.server import Arrival
from notifications.models import FINISHED

__all__ = ["TITLES", "judge"]

LEASE = 15.0  # seconds (contract); a claim is lost by a sender that was lost until then
WRITTEN_WITHIN = 2.0  # from an answer until its result is committed
UNKNOWN_ANSWER = -1  # status of an arrival at a provider that was killed: nobody knows what it said
# What may follow on a status; see docs/notifications.md.
FOLLOWS = {
    "scheduled": {"pending", "cancelled"},
    "pending": {"processing", "failed", "cancelled"},
    "processing": {"pending", "delivered", "failed"},
}
TITLES = {
    "N1": "accepted ⇒ sent, or its reason",
    "N2": "sent once, unless explained",
    "N3": "cancelled ⇒ not begun",
    "N4": "attempts as the rules say",
    "N5": "an end is an end",
    "N6": "who asked to wait is waited for",
    "N7": "never ahead of the limit",
    "N8": "nobody waits without a reason",
    "N9": "high not behind low",
    "N10": "the stream has all, once",
    "N11": "scheduled: at its time",
}


def judge(history: SendHistory) -> list[Verdict]:
    """All invariants, in their order."""
    found = {
        "N1": (_without_an_end(history), _ends(history)),
        "N2": (_sent_again(history), str(len(history.arrivals))),
        "N3": (_begun_after_cancel(history), _cancels(history)),
        "N4": (_attempts(history), str(sum(end.used for end in history.ends.values()))),
        "N5": (_ends_that_changed(history), str(len(history.ends))),
        "N6": (timing.not_waited_for(history), str(len(timing.waits(history)))),
        "N7": (timing.ahead_of_the_limit(history), f"{timing.most_in_a_second(history)}/s"),
        "N8": (timing.idle_without_reason(history), f"{timing.longest_idle(history):.1f} s"),
        "N9": (timing.behind_lower(history), f"{timing.longest_of_high(history):.1f} s"),
        "N10": (_stream(history), str(len(history.changes))),
        "N11": (timing.out_of_its_time(history), _scheduled(history)),
    }
    return [_verdict(name, *found[name]) for name in TITLES]


def _verdict(invariant: str, damage: Iterable[str], figure: str) -> Verdict:
    found = list(damage)
    return Verdict(invariant, TITLES[invariant], len(found), tuple(found[:EXAMPLES]), figure)


def _ends(history: SendHistory) -> str:
    counts = Counter(end.status for end in history.ends.values())
    return ", ".join(f"{counts[status]} {status}" for status in FINISHED if counts[status])


def _cancels(history: SendHistory) -> str:
    excepted = sum(1 for _ in _begun_by_frozen(history))
    return f"{len(history.cancelled)}" + (f", {excepted} by frozen senders" if excepted else "")


def _scheduled(history: SendHistory) -> str:
    count = sum(one.due is not None for one in history.accepted.values())
    latest = max(timing.pending_after(history).values(), default=None)
    return f"{count}" + ("" if latest is None else f", within {latest:.1f} s")


def _without_an_end(history: SendHistory) -> Iterator[str]:
    """N1. What was accepted has an end. Delivered: the provider has said yes to it. Failed: there is a
    reason, and the provider has not said yes."""
    arrived = history.arrived()
    for id_ in history.accepted:
        end, arrivals = history.ends.get(id_), arrived.get(id_, [])
        if end is None:
            yield f"{id_} was accepted and the API does not know it"
        elif end.status not in FINISHED:
            yield f"{id_} is {end.status} in the end"
        elif end.status == "delivered" and not any(_may_have_said_yes(each) for each in arrivals):
            yield f"{id_} is delivered, and the provider never took it"
        elif end.status == "failed" and not end.error:
            yield f"{id_} has failed without a reason"
        elif end.status == "failed" and any(
            history.is_taken(each) and not _was_under_way(history, each) for each in arrivals
        ):
            yield f"{id_} has failed, and the provider took it"


def _may_have_said_yes(arrival: Arrival) -> bool:
    return arrival.status == UNKNOWN_ANSWER or 200 <= arrival.status < 300


def _was_under_way(history: SendHistory, arrival: Arrival) -> bool:
    """Whether its sender was killed or frozen before the result was written."""
    return any(
        lost.in_sends
        and arrival.at <= lost.begin + 0.5
        and history.ended(arrival) >= lost.begin - WRITTEN_WITHIN
        for lost in history.lost
    )


def _sent_again(history: SendHistory) -> Iterator[str]:
    """N2. What the provider has taken is not sent again, and nothing is sent twice at once, unless its
    sender was killed or frozen meanwhile."""
    for id_, arrivals in history.arrived().items():
        for place, (one, following) in enumerate(pairwise(arrivals), 1):
            if _was_under_way(history, one):
                continue
            if history.is_taken(one):
                yield f"{id_} was taken at its arrival {place}, and sent again"
            elif one.answered_at > following.at:
                yield f"{id_} was under way twice at once"


def _begun_after_cancel(history: SendHistory) -> Iterator[str]:
    """N3. After a 200 to its cancel nobody begins to send it, and it was not taken before."""
    excepted = {id(each) for each in _begun_by_frozen(history)}
    for arrival in history.arrivals:
        cancelled_at = history.cancelled.get(arrival.key)
        if cancelled_at is None:
            continue
        if arrival.at > cancelled_at:
            if id(arrival) not in excepted:
                after = arrival.at - cancelled_at
                yield f"{arrival.key} was begun {after:.3f} s after its cancel was answered"
        elif history.is_taken(arrival) and not _was_under_way(history, arrival):
            yield f"{arrival.key} was taken by the provider, then its cancel was answered 200"


def _begun_by_frozen(history: SendHistory) -> Iterator[Arrival]:
    """Left by the contract: a sender that was frozen in its sends, from before the cancel until after it."""
    for arrival in history.arrivals:
        at = history.cancelled.get(arrival.key)
        if at is not None and any(
            lost.in_sends and lost.begin <= at <= lost.end <= arrival.at for lost in history.lost
        ):
            yield arrival


def _attempts(history: SendHistory) -> Iterator[str]:
    """N4. No more are used than allowed; who failed has used all, or was refused, or ran out of time; who
    was asked to wait has used none by it; an attempt of unknown end, or one that was claimed and not begun,
    had a sender that was lost."""
    asked = Counter(arrival.key for arrival, _ in timing.waits(history))
    for id_, end in history.ends.items():
        attempts = history.attempts.get(id_)
        if end.used > end.allowed:
            yield f"{id_} has used {end.used} attempts of {end.allowed}"
        if attempts is None:
            continue
        outcomes = Counter(each.outcome for each in attempts)
        if end.used > len(attempts) - outcomes["delivered"] - asked[id_]:
            yield (
                f"{id_} has used {end.used} of {len(attempts)} attempts, and was asked to wait"
                f" {asked[id_]} times"
            )
        if end.used < outcomes["failed"] + outcomes["refused"]:
            yield f"{id_} has used {end.used} attempts, {dict(outcomes)}"
        passed = outcomes["refused"] or end.error == "expired"
        if end.status == "failed" and not passed and end.used < end.allowed:
            yield f"{id_} has failed with {end.used} attempts of {end.allowed}"
        for each in attempts:
            if each.outcome in ("unknown", "late") and not _was_lost(history.lost, each.at):
                yield f"{id_} has an attempt that is {each.outcome}, and no sender was lost"
            if not each.begun and not _was_lost(history.lost, each.at):
                yield f"{id_} was claimed longer than it may be sent, and no sender was lost"


def _was_lost(lost: Sequence[Lost], claimed_at: float) -> bool:
    return any(each.begin - LEASE <= claimed_at <= each.end + 0.5 for each in lost)


def _ends_that_changed(history: SendHistory) -> Iterator[str]:
    """N5. A notification that was once shown as delivered, failed or cancelled stays so, in the stream and in the API."""
    for id_ in history.cancelled:
        status = history.ends[id_].status if id_ in history.ends else "unknown"
        if status != "cancelled":
            yield f"{id_} was cancelled, and is {status} in the end"
    for id_, status in history.shown.items():
        if id_ in history.ends and history.ends[id_].status != status:
            yield f"{id_} was {status}, and is {history.ends[id_].status} in the end"
    last: dict[str, str] = {}
    for change in history.changes:
        if last.get(change.id) in FINISHED:
            yield f"{change.id} was {last[change.id]}, then {change.status} in the stream"
        last[change.id] = change.status


def _stream(history: SendHistory) -> Iterator[str]:
    """N10. Every change comes once, in the order of its number, through all reconnections: the changes
    of each notification are a way from its beginning to its end."""
    if history.gaps:
        yield f"the stream reported {history.gaps} gaps"
    highest = 0
    last = {
        id_: "pending" if one.due is None else "scheduled" for id_, one in history.accepted.items()
    }
    for change in history.changes:
        if change.seq <= highest:
            yield f"number {change.seq} came behind {highest}"
        highest = max(highest, change.seq)
        before = last.get(change.id, "pending")
        if before not in FINISHED and change.status not in FOLLOWS[before]:
            yield f"{change.id} became {change.status} in the stream, and was {before}"
        last[change.id] = change.status
    for id_, end in history.ends.items():
        if last[id_] != end.status:
            yield f"{id_} is {end.status}, and {last[id_]} by the stream"
