"""From what a run saw to the lines of its table; no I/O."""

from __future__ import annotations

from rich.markup import escape

from devtools.demo.report import ReportLine
from devtools.upgrade.evidence import Left
from devtools.upgrade.run import SeenUpgrade

__all__ = ["conclusion", "lines_of"]


def lines_of(seen: SeenUpgrade) -> list[ReportLine]:
    """Every promise, and whether it was kept."""
    return [*_answers(seen), *_orders(seen), *_effects(seen), *_new_words(seen), *_logs(seen)]


def conclusion(lines: list[ReportLine]) -> str:
    """The last sentence."""
    if failed := [line.name for line in lines if line.ok is False]:
        return f"Promises were broken, see the lines that FAILED: {', '.join(failed)}."
    return "Nothing was lost, doubled or reordered on the way there, back, and there again."


def _answers(seen: SeenUpgrade) -> list[ReportLine]:
    told = seen.promises
    return [
        ReportLine(
            "orders accepted",
            f"{len(told.orders)}",
            len(told.orders) > 0 and not told.refused,
            f"and {len(told.paid)} paid; {told.asked_again} requests were sent again because their "
            f"process ended; refused: {escape(str(told.refused[:3])) if told.refused else 'none'}",
        ),
        ReportLine(
            "asked twice",
            f"{told.repeated}",
            told.repeated > 0 and not told.differing,
            "requests sent once more, mostly to the other release, with the same Idempotency-Key; "
            f"{len(told.differing)} were answered otherwise"
            + (f": {escape(str(told.differing[:2]))}" if told.differing else ""),
        ),
    ]


def _orders(seen: SeenUpgrade) -> list[ReportLine]:
    found = seen.found
    return [
        ReportLine(
            "orders stored",
            f"{seen.account.orders}",
            not found.missing and not found.unasked,
            f"{found.missing} of the accepted ones are missing, {found.unasked} are there that "
            "no answer named",
        ),
        ReportLine(
            "events of them",
            "one each" if not (found.created_wrong or found.paid_wrong) else "not one each",
            not found.created_wrong and not found.paid_wrong,
            f"{found.created_wrong} orders have another number of ORDER_CREATED, "
            f"{found.paid_wrong} payments of PAYMENT_COMPLETED",
        ),
    ]


def _effects(seen: SeenUpgrade) -> list[ReportLine]:
    account = seen.account
    probe = account.probe
    return [
        ReportLine(
            "events published",
            f"{account.published} of {account.events}",
            account.published == account.events,
            f"acknowledged by Kafka; {account.kafka_duplicates} went out twice, which the inbox drops",
        ),
        ReportLine(
            "effects",
            f"{account.applied} of {account.heard}",
            account.applied == account.heard,
            f"of events that have a handler, {account.seconds} s after the last answer",
        ),
        ReportLine(
            "processed events",
            f"{account.processed_events}",
            account.processed_events == account.simple_orders,
            f"rows of {account.simple_orders} simple orders",
        ),
        ReportLine(
            "figures",
            f"{account.figures_different} differ",
            not account.figures_different and not account.under_way,
            "sales figures against a recount of the orders",
        ),
        ReportLine(
            "order",
            f"{probe['violations']} violations",
            probe["drawn"] > 0
            and probe["applied"] == probe["drawn"]
            and not (probe["lost"] or probe["duplicates"] or probe["violations"]),
            f"of {probe['drawn']} numbers; {probe['lost']} lost, {probe['duplicates']} twice",
        ),
        ReportLine(
            "audit", "clean" if not seen.audit else "not clean", not seen.audit, escape(seen.audit)
        ),
        ReportLine(
            "dead letters",
            f"{seen.found.open_letters}",
            not seen.found.open_letters,
            "open ones, of drain and handlers",
        ),
    ]


def _new_words(seen: SeenUpgrade) -> list[ReportLine]:
    told, left = seen.promises, seen.left
    before, after = seen.back_again
    return [
        ReportLine(
            "left for new code",
            f"{left.stored}",
            left.published > 0 and left.applied == 0,
            f"ORDER_DELIVERED, which old code does not know, while only old workers ran: {left.published}"
            f" went to Kafka, {left.applied} were applied, {left.parked} parked, the others waited",
        ),
        ReportLine(
            "and on the way back",
            f"{_open(after)}",
            _open(before) > 0 and after.applied == before.applied,
            f"{_open(before)} when the new workers had gone; old code alone applied "
            f"{after.applied - before.applied} of them and had parked {after.parked}",
        ),
        ReportLine(
            "deliveries",
            f"{len(told.delivered)}",
            bool(told.delivered) and not seen.found.delivered_lost and not seen.found.courier_wrong,
            f"answered; {seen.found.delivered_lost} have no event, {seen.found.courier_wrong} events of "
            "orders are not in the courier's log once and in the order of their order",
        ),
        ReportLine(
            "posts, follows, notifications",
            f"{len(told.posts)}, {len(told.follows)}, {len(told.notifications)}",
            bool(told.posts and told.follows and told.notifications)
            and not seen.found.lost_words
            and not seen.found.undelivered,
            f"answered; {seen.found.lost_words} are not stored, "
            f"{seen.found.undelivered} notifications are not delivered",
        ),
        ReportLine(
            "feeds", "equal" if not seen.feeds else "differ", not seen.feeds, escape(seen.feeds)
        ),
    ]


def _open(left: Left) -> int:
    return left.published - left.applied


def _logs(seen: SeenUpgrade) -> list[ReportLine]:
    went = ", ".join(f"{app} to {name}" for app, name in seen.back.items())
    said = "; ".join(f"{what}: {count}" for what, count in sorted(seen.complaints.items()))
    return [
        ReportLine(
            "migrations taken back", f"{len(seen.back)}", None, went or "both have the same"
        ),
        ReportLine(
            "complaints",
            f"{sum(seen.complaints.values())}",
            None,
            escape(said) or "none in any log",
        ),
    ]
