"""Notifications under chaos: accepted and cancelled over HTTP, sent to a provider of the scenario's own;
at the end its log, and what the API answered, are judged."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from django.conf import settings

from devtools.chaos.ground import Ground
from devtools.chaos.notifications.checker import UNKNOWN_ANSWER, judge
from devtools.chaos.notifications.history import AcceptedSend, Attempted, End, Lost, SendHistory
from devtools.chaos.notifications.stream import StatusStream
from devtools.provider.client import ProviderProcess, provider_process
from devtools.provider.server import AnswerRule, Arrival
from notifications.delivery.standing import reset_breaker
from notifications.models import FINISHED, Channel

__all__ = ["SENDERS", "Messages", "sending"]

SENDERS = ("worker-notifications-high", "worker-notifications-normal", "worker-notifications-low")
PROVIDER = "main"  # its name in PROVIDERS, see devtools/chaos/__main__.py
AT_ONCE = 10  # requests of cancels, and of attempts in the end
IN_A_BATCH = 1000
STREAM_SECONDS = 20.0  # until the stream has reported every end
BACK_SECONDS = 40.0  # until everybody has seen that something is back: a breaker is open for 30 s


class Messages:
    """What one scenario has accepted, cancelled and seen.

    limit  messages a second for a channel, with which the senders were started
    """

    def __init__(self, ground: Ground, log: Path, stream: StatusStream, alive: ExitStack) -> None:
        self.accepted: dict[str, AcceptedSend] = {}
        self.cancelled: dict[str, float] = {}
        self.shown: dict[str, str] = {}
        self.lost: list[Lost] = []
        self.away: list[tuple[float, float]] = []
        self.limit = float(settings.RATE_LIMIT_PER_CHANNEL)
        self.stream = stream
        self._ground = ground
        self._log = log
        self._batches: list[str] = []
        self._kept: dict[tuple[str, str], Arrival] = {}  # arrivals at a provider that is no more
        self._alive = alive
        self._rules: Sequence[AnswerRule] = ()
        self._provider: ProviderProcess | None = self._begin()
        self._wall = time.time() - time.monotonic()

    # -- what users do

    def accept(
        self,
        count: int,
        *,
        priority: str = "high",
        channels: Sequence[str] = Channel.values,
        after: float | None = None,
    ) -> list[str]:
        """Batches in all these channels; their ids. `after`: scheduled for so many seconds from now."""
        ids: list[str] = []
        due = None if after is None else round(time.time() + after, 3)
        for first in range(0, count, IN_A_BATCH):
            numbers = range(first, min(count, first + IN_A_BATCH))
            entries = [
                _entry(number, channels[number % len(channels)], priority, due)
                for number in numbers
            ]
            accepted = self.ask("POST", "notifications/batch", {"notifications": entries})
            self._batches.append(accepted["batch"]["id"])
            at = time.monotonic()
            for each in accepted["notifications"]:
                ids.append(each["id"])
                self.accepted[each["id"]] = AcceptedSend(
                    channel=each["channel"],
                    priority=priority,
                    at=at,
                    due=None if due is None else due - self._wall,
                )
        return ids

    def cancel_at_once(self, ids: Sequence[str]) -> None:
        """All of them, several at a time, while they are being sent."""

        def cancel(id_: str) -> None:
            try:
                self.ask("PATCH", f"notifications/{id_}/cancel", {})
            except HTTPError as refused:
                with refused:
                    if refused.code != 409:
                        raise
            else:
                self.cancelled[id_] = time.monotonic()

        with ThreadPoolExecutor(AT_ONCE) as cancellers:
            list(cancellers.map(cancel, ids))

    def look(self) -> dict[str, End]:
        """Statuses that the API shows now; a final one must stay."""
        found = {id_: end for batch in self._batches for id_, end in self._told_of(batch)}
        for id_, end in found.items():
            if end.status in FINISHED:
                self.shown.setdefault(id_, end.status)
        return found

    def finished(self) -> bool:
        """Whether every one has an end."""
        counts = (self.ask("GET", f"batches/{batch}") for batch in self._batches)
        return all(each["pending_count"] == 0 for each in counts)

    # -- the provider

    def rules(self, *rules: AnswerRule) -> None:
        """What it does from now on."""
        self._rules = rules
        if self._provider is not None:
            self._provider.rules(*rules)

    def arrivals(self) -> list[Arrival]:
        """Everything that has arrived, the oldest first."""
        found = dict(self._kept)
        if self._provider is not None:
            found |= {_place(each.at, each.key): each for each in self._provider.arrivals()}
        return sorted(found.values(), key=lambda each: each.at)

    @contextmanager
    def provider_away(self) -> Iterator[None]:
        """Killed until the end of the block. What it answered last is not known."""
        assert self._provider is not None
        begin = time.monotonic()
        before = self._provider.arrivals()
        self._provider.kill()
        self._provider = None
        for line in self._log.read_text().splitlines():
            at, key, path = line.split(" ")
            unknown = Arrival(at=float(at), path=path, key=key, headers={}, status=UNKNOWN_ANSWER)
            self._kept.setdefault((at, key), unknown)
        self._kept |= {_place(each.at, each.key): each for each in before if each.status}
        with self.nobody_there(begin):
            yield
            self._provider = self._begin()
            self._provider.rules(*self._rules)

    @contextmanager
    def nobody_there(self, begin: float | None = None) -> Iterator[None]:
        """Something that sends, or is sent to, is away until the end of the block; whoever waits for it
        does so until its breaker or its broker has noticed that it is back."""
        begin = time.monotonic() if begin is None else begin
        try:
            yield
        finally:
            self.away.append((begin, time.monotonic() + BACK_SECONDS))

    @contextmanager
    def losing_senders(self, *, in_sends: bool = True) -> Iterator[None]:
        """Senders are killed at the beginning of the block, or stand still until its end."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.lost.append(Lost(begin=begin, end=time.monotonic(), in_sends=in_sends))

    def until_something_arrives(self) -> None:
        """Wait for a message under way."""
        before = len(self.arrivals())
        self._ground.wait(lambda: len(self.arrivals()) > before, 30, "a message under way")

    def _begin(self) -> ProviderProcess:
        port = urlsplit(settings.PROVIDERS[PROVIDER]["url"]).port or 0
        return self._alive.enter_context(provider_process(port=port, log=str(self._log)))

    # -- what is known in the end

    def history(self) -> SendHistory:
        """All of it, read from the provider and from the API."""
        arrivals = [each for each in self.arrivals() if each.key in self.accepted]
        ends = self.look()
        self._wait_for_the_stream(ends)
        changes = [each for each in self.stream.changes if each.id in self.accepted]
        counts = Counter(each.key for each in arrivals)
        simple = {
            id_
            for id_, end in ends.items()
            if end.status == "delivered" and not end.used and counts[id_] == 1
        } - self._put_back(ends)
        with ThreadPoolExecutor(AT_ONCE) as readers:
            rest = sorted(ends.keys() - simple)
            attempts = dict(zip(rest, readers.map(self._attempts_of, rest), strict=True))
        return SendHistory(
            accepted=self.accepted,
            arrivals=arrivals,
            cancelled=self.cancelled,
            shown=self.shown,
            ends=ends,
            attempts=attempts,
            changes=changes,
            gaps=self.stream.gaps,
            lost=self.lost,
            away=self.away,
            limit=self.limit,
            timeout=settings.PROVIDERS[PROVIDER]["timeout"],
        )

    def _wait_for_the_stream(self, ends: Mapping[str, End]) -> None:
        give_up = time.monotonic() + STREAM_SECONDS
        wanted = {id_: end.status for id_, end in ends.items()}
        while time.monotonic() < give_up:
            if wanted.items() <= self.stream.statuses().items():
                return
            time.sleep(0.2)

    def _put_back(self, ids: Iterable[str]) -> set[str]:
        """Those that a sender has claimed once, and did not send."""
        sql = (
            "SELECT DISTINCT notification_id FROM notification_attempts"
            " WHERE outcome = 'held' AND notification_id = ANY(%s::uuid[])"
        )
        return {str(id_) for (id_,) in self._ground.evidence.rows(sql, (list(ids),))}

    def _told_of(self, batch: str) -> Iterator[tuple[str, End]]:
        cursor: str | None = ""
        while cursor is not None:
            page = self.ask("GET", f"notifications?batch_id={batch}&page_size=100{cursor}")
            for each in page["data"]:
                yield (
                    each["id"],
                    End(
                        status=each["status"],
                        error=each["error_message"],
                        used=each["retry_count"],
                        allowed=each["max_retries"],
                    ),
                )
            following = page["next_cursor"]
            cursor = None if following is None else f"&cursor={following}"

    def _attempts_of(self, id_: str) -> list[Attempted]:
        return [
            Attempted(
                at=datetime.fromisoformat(each["at"]).timestamp() - self._wall,
                outcome=each["outcome"] or "",
                status_code=each["status_code"],
                begun=each["latency_ms"] is not None or each["outcome"] != "held",
            )
            for each in self.ask("GET", f"notifications/{id_}/attempts")["data"]
        ]

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """What the API answers. Raises HTTPError."""
        request = Request(  # noqa: S310
            f"{self._ground.stack.base_url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read())


@contextmanager
def sending(ground: Ground, *, within: float) -> Iterator[Messages]:
    """A provider of this scenario, to which the senders send; at the end of the block everything is waited
    for, at most `within` seconds, and judged."""
    for channel in Channel.values:
        reset_breaker(PROVIDER, channel, who="chaos", reason="a new scenario")
    log = ground.directory / f"provider-{ground.prefix.strip(':')}"
    with ExitStack() as alive:
        stream = alive.enter_context(StatusStream(ground.stack.base_url))
        messages = Messages(ground, log, stream, alive)
        yield messages
        give_up = time.monotonic() + within
        while not messages.finished() and time.monotonic() < give_up:
            time.sleep(0.3)
        history = messages.history()
    ground.verdicts += judge(history)
    # Of those that did not simply arrive once.
    outcomes = Counter(each.outcome for tried in history.attempts.values() for each in tried)
    if outcomes:
        ground.figures["attempts"] = ", ".join(
            f"{count} {outcome or 'open'}" for outcome, count in sorted(outcomes.items())
        )


def _entry(number: int, channel: str, priority: str, due: float | None) -> dict[str, str]:
    to = {"sms": f"+1555{number:07}", "email": f"m{number}@example.org", "push": f"device-{number}"}
    entry = {
        "recipient": to[channel],
        "channel": channel,
        "content": "Hello",
        "priority": priority,
    }
    if due is not None:
        entry["scheduled_at"] = datetime.fromtimestamp(due, UTC).isoformat()
    return entry


def _place(at: float, key: str) -> tuple[str, str]:
    """Which arrival it is, as the log has it."""
    return f"{at:.6f}", key
