"""The third part: notifications through a provider that refuses one in ten and dies once.

Then the provider's own log is held against what was accepted."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from django.db.models import Count
from django.utils import timezone

from devtools.demo.report import ReportLine
from devtools.localstack import LocalStack
from devtools.provider.client import provider_process
from devtools.provider.server import AnswerRule
from eventsite.wording import counted
from notifications.delivery.standing import reset_breaker
from notifications.models import FINISHED, Attempt, Notification

__all__ = ["SentNotifications", "lines_of", "send"]

BATCHES, IN_A_BATCH, CANCELLED = 6, 40, 20
SEED = 7
AWAY_SECONDS = 1.5
SETTLE_SECONDS = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentNotifications:
    """What was accepted, what came of it, and what the provider noted.

    reasons    of those that failed
    cancelled  ids whose cancel was answered 200
    attempts   by id
    arrivals   by id, at the provider
    """

    accepted: Sequence[str]
    statuses: Mapping[str, int]
    reasons: Sequence[str | None]
    cancelled: Sequence[str]
    attempts: Mapping[str, int]
    outcomes: Mapping[str, int]
    arrivals: Mapping[str, int]
    seconds: float


def send(
    stack: LocalStack, log: Path, *, port: int, say: Callable[[str], None]
) -> SentNotifications:
    """Accept, cancel some, let the provider die and come back, wait until all have an end."""
    started = time.monotonic()
    rule = AnswerRule(share=0.1, seed=SEED, status=503)
    with ExitStack() as alive:
        provider = alive.enter_context(provider_process(port=port, log=str(log), forget=True))
        provider.rules(rule)
        cancelled = _cancel(stack, _accept(stack, CANCELLED, scheduled=True))
        accepted = _accept(stack, IN_A_BATCH)
        _until(lambda: _arrived(log), seconds=10)
        for number in range(1, BATCHES):
            accepted += _accept(stack, IN_A_BATCH, first=number * IN_A_BATCH)
        provider.kill()
        say("the provider was killed (SIGKILL)")
        time.sleep(AWAY_SECONDS)
        again = alive.enter_context(provider_process(port=port, log=str(log), forget=True))
        again.rules(rule)
        for channel in ("sms", "email", "push"):
            reset_breaker("provider", channel, who="demo", reason="it was started again")
        say("the provider was started again, and its breakers were closed by hand")
        _until(lambda: not _open(accepted), seconds=SETTLE_SECONDS)
        arrivals = Counter(line.split()[1] for line in log.read_text().splitlines())
    return _observed(accepted, cancelled, arrivals, time.monotonic() - started)


def _observed(
    accepted: Sequence[str], cancelled: Sequence[str], arrivals: Mapping[str, int], seconds: float
) -> SentNotifications:
    rows = Notification.objects.filter(id__in=accepted)
    tried = Attempt.objects.filter(notification_id__in=accepted)
    attempts = tried.values_list("notification_id").annotate(count=Count("id"))
    return SentNotifications(
        accepted=accepted,
        statuses=Counter(rows.values_list("status", flat=True)),
        reasons=list(rows.filter(status="failed").values_list("error_message", flat=True)),
        cancelled=cancelled,
        attempts={str(id_): count for id_, count in attempts},
        outcomes=Counter(str(outcome) for outcome in tried.values_list("outcome", flat=True)),
        arrivals=arrivals,
        seconds=seconds,
    )


def lines_of(sent: SentNotifications) -> list[ReportLine]:
    """What the table says of them."""
    lost = [id_ for id_ in sent.accepted if not sent.arrivals.get(id_)]
    delivered = sent.statuses.get("delivered", 0)
    unasked = sum(sent.arrivals.get(id_, 0) > sent.attempts.get(id_, 0) for id_ in sent.accepted)
    begun = sum(sent.arrivals.get(id_, 0) for id_ in sent.cancelled)
    failed, held = sent.outcomes.get("failed", 0), sent.outcomes.get("held", 0)
    return [
        ReportLine(
            "notifications",
            f"{delivered} of {len(sent.accepted)}",
            delivered + len(sent.reasons) == len(sent.accepted) and all(sent.reasons),
            f"delivered, {len(sent.reasons)} failed with a reason, after {sent.seconds:.0f} s: "
            f"{counted(failed, 'attempt')} failed, {counted(held, 'probe')} of a breaker",
        ),
        ReportLine(
            "never arrived",
            f"{len(lost)}",
            len(lost) <= len(sent.reasons),
            "by the provider's own log, of those without a reason",
        ),
        ReportLine(
            "sent unasked",
            f"{unasked}",
            unasked == 0,
            "arrived more often than there were attempts, by the provider's own log",
        ),
        ReportLine(
            "cancelled, sent",
            f"{begun}",
            begun == 0 and len(sent.cancelled) == CANCELLED,
            f"of {len(sent.cancelled)} whose cancel was answered",
        ),
    ]


def _accept(stack: LocalStack, count: int, *, first: int = 0, scheduled: bool = False) -> list[str]:
    """A batch of all channels, of priority high; their ids. `scheduled`: for a moment from now."""
    at: dict[str, str] = {}
    if scheduled:
        later = timezone.now() + timedelta(seconds=3)
        at = {"scheduled_at": later.isoformat()}
    entries = []
    for number in range(first, first + count):
        channel = ("sms", "email", "push")[number % 3]
        to = {"sms": f"+1555{number:07}", "email": f"a{number}@example.org"}
        entries.append(
            {
                "recipient": to.get(channel, f"token-{number}"),
                "channel": channel,
                "content": "Hello",
                "priority": "high",
                **at,
            }
        )
    accepted = _call(stack, "POST", "notifications/batch", {"notifications": entries})
    return [each["id"] for each in accepted["notifications"]]


def _cancel(stack: LocalStack, ids: Sequence[str]) -> list[str]:
    return [
        id_
        for id_ in ids
        if _call(stack, "PATCH", f"notifications/{id_}/cancel", {}) == {"status": "cancelled"}
    ]


def _call(stack: LocalStack, method: str, path: str, body: Mapping[str, object]) -> Any:
    request = Request(  # noqa: S310
        f"{stack.base_url}/api/v1/{path}",
        data=json.dumps(body).encode(),
        method=method,
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=20) as answer:  # noqa: S310
        return json.loads(answer.read())


def _arrived(log: Path) -> bool:
    return log.exists() and log.stat().st_size > 0


def _open(ids: Sequence[str]) -> bool:
    return Notification.objects.filter(id__in=ids).exclude(status__in=FINISHED).exists()


def _until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Wait for it, at most so long: what is missing then, the lines say."""
    give_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.1)
