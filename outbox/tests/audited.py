"""The handler whose events the tests of the audit compare, and what the audit finds of it."""

from __future__ import annotations

from outbox import conf
from outbox.audit import compare
from outbox.audit import watch as audit_watch
from outbox.audit.compare import MissingReason
from outbox.tests.backbone_rows import (
    HANDLER,
    LOG,
    TOPIC,
)

LOGS = {TOPIC: LOG}


ROUTE = conf.route_named(HANDLER)


def reasons(size: int = compare.PAGE) -> list[MissingReason]:
    pages = compare.pages(ROUTE, LOGS, size=size)
    return [each.reason for page in pages for each in page]


def watch() -> dict[MissingReason, int]:
    return {reason: tally.events for (_, reason), tally in audit_watch.watch(ROUTE, LOGS).items()}
