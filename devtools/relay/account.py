"""What became of messages: every one in Kafka, or a dead letter with its reason, or still queued."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devtools.relay.messages import Message

__all__ = ["FoundMessages", "RelayAccount", "account"]


@dataclass(frozen=True, slots=True)
class FoundMessages:
    """What there is in the end.

    kafka    (partition, event id, value) in the order of each partition
    letters  body -> reasons
    queued   bodies
    """

    kafka: Sequence[tuple[int, str, bytes]]
    letters: Mapping[bytes, Sequence[str]]
    queued: Sequence[bytes]


@dataclass(slots=True)
class RelayAccount:
    """`lost`, `altered`, `misplaced` and `reordered` name messages and must be empty; `duplicates` are
    further copies in Kafka, `letter_copies` in the dead-letter queue."""

    sent: int = 0
    in_kafka: int = 0
    dead: int = 0
    queued: int = 0
    duplicates: int = 0
    letter_copies: int = 0
    lost: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing altered, nothing where it does not belong, order kept."""
        return not (self.lost or self.altered or self.misplaced or self.reordered)


def account(sent: Sequence[Message], found: FoundMessages) -> RelayAccount:
    """Compare. `sent` is in the order of the queue, each body once."""
    seen = RelayAccount(sent=len(sent))
    values: dict[str, list[bytes]] = defaultdict(list)
    for _, event_id, value in found.kafka:
        values[event_id].append(value)
    queued = Counter(found.queued)
    for message in sent:
        copies = values.get(message.event_id, []) if message.event_id else []
        reasons = found.letters.get(message.body, ())
        name = message.event_id or message.body[:60].decode("latin-1")
        if queued[message.body]:
            seen.queued += 1
        elif message.payload is None:
            _judge_bad(seen, message, name, reasons)
        elif not copies:
            (seen.misplaced if reasons else seen.lost).append(name)
        if copies and message.payload is not None:
            seen.in_kafka += 1
            seen.duplicates += len(copies) - 1
            if any(copy != message.payload for copy in copies):
                seen.altered.append(name)
        elif copies:
            seen.misplaced.append(name)
    seen.reordered = _reordered(sent, found)
    return seen


def _judge_bad(seen: RelayAccount, message: Message, name: str, reasons: Sequence[str]) -> None:
    if not reasons:
        seen.lost.append(name)
        return
    seen.dead += 1
    seen.letter_copies += len(reasons) - 1
    if not all(message.names in reason for reason in reasons):
        seen.misplaced.append(f"{name}: {reasons[0]}")


def _reordered(sent: Sequence[Message], found: FoundMessages) -> list[str]:
    """Ids whose first copy stands behind one that was sent later, in the same partition."""
    place = {message.event_id: number for number, message in enumerate(sent) if message.event_id}
    last: dict[int, int] = {}
    seen_before: set[str] = set()
    wrong = []
    for partition, event_id, _ in found.kafka:
        if event_id in seen_before or event_id not in place:
            continue
        seen_before.add(event_id)
        if place[event_id] < last.get(partition, -1):
            wrong.append(event_id)
        last[partition] = max(last.get(partition, -1), place[event_id])
    return wrong
