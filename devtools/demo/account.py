"""From what was observed to the lines of the table: every verdict of the demo, and no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devtools.demo.report import ReportLine
from devtools.probe.queries import OrderVerdict
from devtools.testing.measure import Counts, KafkaCount, Latency
from eventsite.reports.recount import FigureComparison
from eventsite.wording import counted

__all__ = ["DRAIN", "FeedsAccount", "Half", "Observations", "account", "conclusion"]

DRAIN = "worker-outbox"  # the process with the drain in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One half of the load.

    sent               orders sent
    accepted           of them answered 200 or 201
    simple             of these answered 200: they came in the simple body
    changes_attempted  payments, shipments and cancellations sent, all of them legal
    changes_answered   of them answered 200
    operations         how many of each kind were sent
    stock              lines of the accepted orders, and of those whose cancellation was answered 200
    drawn              numbers of the probe committed meanwhile
    """

    sent: int
    accepted: int
    simple: int
    changes_attempted: int
    changes_answered: int
    operations: Mapping[str, int]
    stock: int
    drawn: int
    post: Latency
    to_kafka: Latency
    to_figures: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsAccount:
    """What users of feeds did in both halves, and their feeds in the end.

    sent         posts, deletions, follows and unfollows sent
    answered     of them by kind; each is one event
    lost         of these not so in the database
    read         pages read meanwhile
    impossible   of these that cannot have been true when they were read
    users        users whose feeds were read, page by page, to the first post
    wrong        of these feeds that differ from the truth, or were still on their way
    entries      stored entries that are right
    differences  entries that are missing or wrong
    """

    sent: int
    answered: Mapping[str, int]
    lost: int
    read: int
    impossible: int
    users: int
    wrong: int
    entries: int
    differences: int

    @property
    def changes(self) -> int:
        return sum(self.answered.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Both halves, and what there is in the end.

    stock            committed events of topic stock
    missing          accepted orders that are not in the database
    order            over all numbers of the probe, those of the warm-up too
    calm_duplicates  duplicates in Kafka before the kills
    killed           processes that died by SIGKILL, in this order
    others           deaths that were not the demo's doing, by process
    caught_events    events in the hands of the drain when it was killed
    """

    calm: Half
    rough: Half
    counts: Counts
    stock: int
    missing: int
    order: OrderVerdict
    kafka: KafkaCount
    calm_duplicates: int
    figures: FigureComparison
    feeds: FeedsAccount
    killed: tuple[str, ...]
    others: Mapping[str, int]
    caught_events: int | None


def account(seen: Observations) -> list[ReportLine]:
    """The table, from the order sent to the figures it is part of."""
    return [
        *_orders(seen),
        *_events(seen),
        *_effects(seen),
        *_kills(seen),
        *_latencies(seen),
        *_feeds(seen.feeds),
    ]


def conclusion(seen: Observations, lines: Sequence[ReportLine]) -> str:
    """What the run has shown, in a sentence or two."""
    if failed := [line.name for line in lines if line.ok is False]:
        promises = counted(len(failed), "promise was", "promises were")
        sentence = f"{promises} broken, see the lines that FAILED: {', '.join(failed)}."
        if seen.calm.accepted + seen.rough.accepted < seen.calm.sent + seen.rough.sent:
            sentence += (
                " Orders were not answered in time: if this machine is busy, try a lower rate,"
                ' make demo ARGS="--rate 50".'
            )
        return sentence
    orders = seen.calm.accepted + seen.rough.accepted
    changes = seen.calm.changes_answered + seen.rough.changes_answered
    return (
        f"Nothing was lost, doubled or reordered: {counted(orders, 'order')}, "
        f"{counted(changes, 'change')}, {counted(seen.feeds.changes, 'change')} of feeds and "
        f"{counted(seen.order.drawn, 'probe number')} made {counted(seen.counts.events, 'event')}, "
        f"{counted(len(seen.killed), 'process was', 'processes were')} killed, and each of the "
        f"{counted(seen.counts.applied, 'event')} with an effect here took effect exactly once. "
        f"The feeds of {counted(seen.feeds.users, 'user')} equal the truth."
    )


def _orders(seen: Observations) -> list[ReportLine]:
    sent = seen.calm.sent + seen.rough.sent
    accepted = seen.calm.accepted + seen.rough.accepted
    attempted = seen.calm.changes_attempted + seen.rough.changes_attempted
    changed = seen.calm.changes_answered + seen.rough.changes_answered
    paid, shipped, cancelled = (
        sum(half.operations.get(name, 0) for half in (seen.calm, seen.rough))
        for name in ("pay", "ship", "cancel")
    )
    return [
        ReportLine("orders sent", f"{sent}", None, "in both formats, at a fixed rate"),
        ReportLine("accepted", f"{accepted}", accepted == sent, "answered 200 or 201"),
        ReportLine(
            "changes",
            f"{changed} of {attempted}",
            attempted == changed,
            f"answered 200, of those sent: {counted(paid, 'payment')}, "
            f"{counted(shipped, 'shipment')}, {counted(cancelled, 'cancellation')}",
        ),
        ReportLine(
            "committed",
            f"{seen.counts.orders}",
            not seen.missing and seen.counts.orders == accepted,
            f"orders in the database; {seen.missing} of the accepted ones are missing",
        ),
    ]


def _events(seen: Observations) -> list[ReportLine]:
    found = seen.counts
    halves = (seen.calm, seen.rough)
    stock = sum(half.stock for half in halves)
    # An order is one event, a simple one a second, each change (of orders and of feeds) and each number
    # drawn one more, and so is each line that is reserved or released.
    expected = (
        seen.order.drawn
        + stock
        + seen.feeds.changes
        + sum(half.accepted + half.simple + half.changes_answered for half in halves)
    )
    warm_up = seen.order.drawn - seen.calm.drawn - seen.rough.drawn
    return [
        ReportLine(
            "probe numbers",
            f"{seen.order.drawn}",
            seen.calm.drawn > 0 and seen.rough.drawn > 0,
            f"numbered events beside the orders, to see their order: {warm_up} to warm up, "
            f"{seen.calm.drawn} undisturbed, {seen.rough.drawn} while processes were killed",
        ),
        ReportLine(
            "events committed",
            f"{found.events}",
            found.events == expected,
            "stored in the transactions of their changes, the probe's among them",
        ),
        ReportLine(
            "of them stock",
            f"{seen.stock}",
            seen.stock == stock > 0,
            "one for each order line reserved or released; they are for other programs",
        ),
        ReportLine(
            "published",
            f"{found.published}",
            found.published == found.events,
            "acknowledged by Kafka",
        ),
        ReportLine(
            "in Kafka",
            f"{seen.kafka.distinct}",
            seen.kafka.distinct == found.events,
            "different events found when its topics were read back",
        ),
    ]


def _effects(seen: Observations) -> list[ReportLine]:
    found, order = seen.counts, seen.order
    wrong_rows = abs(found.processed_events - (seen.calm.simple + seen.rough.simple))
    return [
        ReportLine(
            "effects applied",
            f"{found.applied}",
            found.applied == found.heard == found.events - seen.stock,
            "events that took effect: all but those about stock",
        ),
        ReportLine(
            "lost",
            f"{found.heard - found.applied}",
            found.heard == found.applied,
            "events committed that took no effect",
        ),
        ReportLine(
            "duplicate effects",
            f"{wrong_rows + abs(order.duplicates)}",
            wrong_rows == 0 and order.duplicates == 0,
            "effects found more than once, or not at all",
        ),
        ReportLine(
            "order violations",
            f"{order.violations}",
            order.ok,
            f"of {counted(order.applied, 'probe number')} applied, those that did not follow their "
            f"predecessor; {order.lost} lost, {order.duplicates} twice",
        ),
    ]


def _kills(seen: Observations) -> list[ReportLine]:
    caught, figures = seen.caught_events, seen.figures
    bounded = seen.calm_duplicates == 0 and seen.kafka.duplicates <= (caught or 0)
    deaths = ", ".join(f"{name} {times}" for name, times in seen.others.items())
    return [
        ReportLine(
            "duplicates in Kafka",
            f"{seen.kafka.duplicates}",
            # What a drain had in hand that somebody else killed, nobody has counted.
            bounded or (None if DRAIN in seen.others else False),
            _repeated(seen),
        ),
        ReportLine(
            "drain killed in a batch",
            "yes" if caught else "no",
            bool(caught),
            f"killed with SIGKILL: {', '.join(seen.killed)}",
        ),
        *(
            [ReportLine("killed by others", deaths, None, "how often; each was started again")]
            if deaths
            else []
        ),
        ReportLine(
            "figures",
            f"{figures.figures}",
            not figures.different and not figures.under_way,
            f"sales figures; {figures.different} differ from a recount of the orders"
            + (f", {figures.under_way} still under way" if figures.under_way else ""),
        ),
    ]


def _repeated(seen: Observations) -> str:
    """Why there are as many duplicates as there are."""
    caught, after = seen.caught_events or 0, seen.kafka.duplicates - seen.calm_duplicates
    held = f"the drain died with {counted(caught, 'event')} in hand"
    if after == 0:
        sentence = f"{held}, none of which was sent twice"
    elif after <= caught:
        sentence = f"{held}; {after} of them had been sent and went out again"
    else:
        sentence = f"{held}, but {counted(after, 'event')} went out again"
    if seen.calm_duplicates:
        sentence = f"{seen.calm_duplicates} before any kill; {sentence}"
    return f"{sentence}; the inbox drops repetitions" if seen.kafka.duplicates else sentence


def _feeds(feeds: FeedsAccount) -> list[ReportLine]:
    done = ", ".join(f"{count} of {kind}" for kind, count in feeds.answered.items())
    return [
        ReportLine(
            "changes of feeds",
            f"{feeds.changes} of {feeds.sent}",
            feeds.changes == feeds.sent > 0 and not feeds.lost,
            f"answered, of those sent ({done}); {feeds.lost} of them are not in the database",
        ),
        ReportLine(
            "pages read meanwhile",
            f"{feeds.read}",
            feeds.read > 0 and not feeds.impossible,
            f"newest pages of feeds; {feeds.impossible} show a deleted post or one whose author "
            "is not followed, or lack one that was there",
        ),
        ReportLine(
            "feeds",
            f"{feeds.users}",
            feeds.users > 0 and not feeds.wrong,
            f"each read to its first post, from PostgreSQL and from the cache; {feeds.wrong} differ from "
            "the posts of who is followed",
        ),
        ReportLine(
            "stored entries",
            f"{feeds.entries}",
            feeds.entries > 0 and not feeds.differences,
            f"copies of these posts; {feeds.differences} are missing or wrong",
        ),
    ]


def _latencies(seen: Observations) -> list[ReportLine]:
    calm, rough = seen.calm, seen.rough
    return [
        ReportLine("POST /orders", str(calm.post), None, f"with kills: {rough.post}"),
        ReportLine("commit → Kafka", str(calm.to_kafka), None, f"with kills: {rough.to_kafka}"),
        ReportLine(
            "commit → figures", str(calm.to_figures), None, f"with kills: {rough.to_figures}"
        ),
    ]
