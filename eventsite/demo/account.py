"""From what was observed to the lines of the table: every verdict of the demo, and no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eventsite.demo.report import Line
from eventsite.load.measure import Counts, KafkaCount, Latency
from eventsite.probe.queries import OrderVerdict
from eventsite.recount import Comparison

__all__ = ["DRAIN", "Half", "Observations", "account"]

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
    figures: Comparison
    killed: tuple[str, ...]
    others: Mapping[str, int]
    caught_events: int | None


def account(seen: Observations) -> list[Line]:
    """The table, from the order sent to the figures it is part of."""
    return [*_orders(seen), *_events(seen), *_effects(seen), *_kills(seen), *_latencies(seen)]


def _orders(seen: Observations) -> list[Line]:
    sent = seen.calm.sent + seen.rough.sent
    accepted = seen.calm.accepted + seen.rough.accepted
    attempted = seen.calm.changes_attempted + seen.rough.changes_attempted
    changed = seen.calm.changes_answered + seen.rough.changes_answered
    paid, shipped, cancelled = (
        sum(half.operations.get(name, 0) for half in (seen.calm, seen.rough))
        for name in ("pay", "ship", "cancel")
    )
    return [
        Line("orders sent", f"{sent}", None, "both bodies mixed, arrivals by the clock"),
        Line("accepted", f"{accepted}", accepted == sent, "answered 200 or 201"),
        Line(
            "changes",
            f"{attempted}/{changed}",
            attempted == changed,
            f"attempted/answered 200: {paid} payments, {shipped} shipments, "
            f"{cancelled} cancellations",
        ),
        Line(
            "committed",
            f"{seen.counts.orders}",
            not seen.missing and seen.counts.orders == accepted,
            f"{seen.missing} accepted orders missing; {changed} changes of them",
        ),
    ]


def _events(seen: Observations) -> list[Line]:
    found = seen.counts
    halves = (seen.calm, seen.rough)
    stock = sum(half.stock for half in halves)
    # An order is one event, a simple one a second, each change and each number drawn one more, and
    # so is each line that is reserved or released.
    expected = (
        seen.order.drawn
        + stock
        + sum(half.accepted + half.simple + half.changes_answered for half in halves)
    )
    return [
        Line(
            "probe numbers drawn",
            f"{seen.calm.drawn}",
            seen.calm.drawn > 0 and seen.rough.drawn > 0,
            f"with kills: {seen.rough.drawn}",
        ),
        Line(
            "events committed",
            f"{found.events}",
            found.events == expected,
            f"{seen.order.drawn} of them the probe's",
        ),
        Line(
            "of them stock",
            f"{seen.stock}",
            seen.stock == stock > 0,
            "one for each line reserved or released; no handler here, other programs read them",
        ),
        Line(
            "published",
            f"{found.published}",
            found.published == found.events,
            "settled in the outbox",
        ),
        Line(
            "in Kafka",
            f"{seen.kafka.distinct}",
            seen.kafka.distinct == found.events,
            "distinct event ids, read back",
        ),
    ]


def _effects(seen: Observations) -> list[Line]:
    found, order = seen.counts, seen.order
    wrong_rows = abs(found.processed_events - (seen.calm.simple + seen.rough.simple))
    return [
        Line(
            "effects applied",
            f"{found.applied}",
            found.applied == found.heard == found.events - seen.stock,
            "receipts of all events but those of topic stock",
        ),
        Line("lost", f"{found.heard - found.applied}", found.heard == found.applied),
        Line(
            "duplicate effects",
            f"{wrong_rows + abs(order.duplicates)}",
            wrong_rows == 0 and order.duplicates == 0,
            "rows and log entries",
        ),
        Line(
            "order violations",
            f"{order.violations}",
            order.ok,
            f"{order.applied} entries of the probe's log, {order.lost} lost, "
            f"{order.duplicates} twice",
        ),
    ]


def _kills(seen: Observations) -> list[Line]:
    caught, figures = seen.caught_events, seen.figures
    bounded = seen.calm_duplicates == 0 and seen.kafka.duplicates <= (caught or 0)
    deaths = ", ".join(f"{name} {times}" for name, times in seen.others.items())
    return [
        Line(
            "duplicates in Kafka",
            f"{seen.kafka.duplicates}",
            # What a drain had in hand that somebody else killed, nobody has counted.
            bounded or (None if DRAIN in seen.others else False),
            f"{seen.calm_duplicates} before the kills; the drain died with {caught} events in "
            "hand, and what it had sent of them went out again: the inbox drops such repetitions",
        ),
        Line(
            "drain killed in a batch",
            "yes" if caught else "no",
            bool(caught),
            ", ".join(seen.killed) + " each died by SIGKILL",
        ),
        *([Line("killed by others", deaths, None, "and started again")] if deaths else []),
        Line(
            "figures",
            f"{figures.figures}",
            not figures.different and not figures.under_way,
            f"{figures.different} differ from the recount of the orders table",
        ),
    ]


def _latencies(seen: Observations) -> list[Line]:
    calm, rough = seen.calm, seen.rough
    return [
        Line("POST /orders", str(calm.post), None, f"with kills: {rough.post}"),
        Line("commit → Kafka", str(calm.to_kafka), None, f"with kills: {rough.to_kafka}"),
        Line("commit → figures", str(calm.to_figures), None, f"with kills: {rough.to_figures}"),
    ]
