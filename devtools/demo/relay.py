"""The fourth part: messages relayed from RabbitMQ to Kafka while relay, RabbitMQ and Kafka are killed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pika
from rich.console import Console

from devtools.demo.background import Background
from devtools.demo.report import ReportLine
from devtools.localstack import LocalStack, LocalStackError
from devtools.relay import evidence
from devtools.relay.account import FoundMessages, RelayAccount, account
from devtools.relay.messages import BAD, Message, numbered
from eventsite.wording import counted
from outbox.rabbitmq.policy import RelayPolicy

__all__ = ["relay_lines"]

MESSAGES = 2000
SETTLE_SECONDS = 60.0
RESTART_SECONDS = 180.0  # that RabbitMQ may take on a machine with other work
APART = 1.0  # seconds between two kills


@dataclass(slots=True)
class _Seen:
    account: RelayAccount
    reasons: Counter[str]
    killed: Sequence[str]
    sent_again: int


def relay_lines(stack: LocalStack, console: Console) -> list[ReportLine]:
    """Send, kill, wait, account; no lines where this stack has no relay."""
    if "RABBITMQ_URL" not in stack.env:
        return []
    bad = list(BAD.values())
    messages = [numbered("relayed", number) for number in range(MESSAGES)]
    step = MESSAGES // len(bad)
    for place, message in enumerate(bad):
        messages.insert(place * (step + 1), message)
    console.print(
        f"\n[bold]4.[/] {len(messages)} messages through RabbitMQ, bad ones among them, while the"
        " relay and its servers are killed"
    )
    killed: list[str] = []
    killer = Background(lambda: _kill(stack, killed, console.print))
    sent_again = _send(stack.env["RABBITMQ_URL"], messages)
    killer.finish()
    seen = _settle(stack, messages, killed, sent_again)
    return _lines(seen)


def _policy(stack: LocalStack) -> RelayPolicy:
    return RelayPolicy(url=stack.env["RABBITMQ_URL"], dedupe_url=stack.env["REDIS_URL"])


def _kill(stack: LocalStack, killed: list[str], say: Callable[[str], None]) -> None:
    """The relay is started again by the stack; the servers by us, side by side."""
    time.sleep(APART)
    stack.process("relay").kill()
    killed.append("relay")
    say("relay was killed (SIGKILL)")
    time.sleep(APART)
    units = [stack.server("rabbitmq")]
    kafka = next(server for server in stack.servers if server.name == "kafka")
    if kafka.forgets:
        say("Kafka is left alone: this one forgets its log")
    elif kafka.unit is not None:
        units.append(kafka.unit)
    for unit in units:
        unit.kill()
        killed.append(unit.name)
        say(f"{unit.name} was killed (SIGKILL)")
    for unit in units:
        unit.start()
    for unit in units:
        unit.wait_ready()
        say(f"{unit.name} was started again")


def _send(url: str, messages: Sequence[Message]) -> int:
    """As a careful sender does: each message until RabbitMQ has confirmed it. How many were sent once
    more because nobody knew."""
    again, position = 0, 0
    give_up = time.monotonic() + RESTART_SECONDS
    while position < len(messages):
        try:
            connection = pika.BlockingConnection(pika.URLParameters(url))
            channel = connection.channel()
            channel.confirm_delivery()
            while position < len(messages):
                message = messages[position]
                properties = pika.BasicProperties(
                    delivery_mode=2,
                    headers=dict(message.headers) if message.headers else None,
                    content_encoding=message.encoding,
                )
                channel.basic_publish("", "events", message.body, properties, mandatory=True)
                position += 1
                give_up = time.monotonic() + RESTART_SECONDS
            connection.close()
        except (pika.exceptions.AMQPError, OSError):
            if time.monotonic() > give_up:
                raise LocalStackError("RabbitMQ does not come back.") from None
            again += 1
            time.sleep(0.1)
    return again


def _settle(
    stack: LocalStack, messages: Sequence[Message], killed: Sequence[str], sent_again: int
) -> _Seen:
    policy = _policy(stack)
    give_up = time.monotonic() + SETTLE_SECONDS
    while True:
        # What is still in the queue is the relay's to take.
        found = FoundMessages(evidence.in_kafka(policy.topic), evidence.letters(policy), queued=())
        seen = account(messages, found)
        if not seen.lost or time.monotonic() > give_up:
            reasons = Counter(
                reason.partition(":")[0] for each in found.letters.values() for reason in each
            )
            return _Seen(seen, reasons, killed, sent_again)
        time.sleep(0.3)


def _lines(seen: _Seen) -> list[ReportLine]:
    found = seen.account
    bad = sum(message.payload is None for message in BAD.values())
    reasons = ", ".join(f"{count} {name}" for name, count in seen.reasons.most_common())
    return [
        ReportLine(
            "relayed messages", f"{found.sent}", None, "sent to RabbitMQ, each confirmed by it"
        ),
        ReportLine(
            "of them in Kafka",
            f"{found.in_kafka}",
            found.in_kafka == found.sent - bad and not found.altered,
            f"{len(found.altered)} with another payload than they were sent with, byte for byte",
        ),
        ReportLine(
            "dead letters", f"{found.dead}", found.dead == bad, f"with their reason: {reasons}"
        ),
        ReportLine(
            "lost by the relay",
            f"{len(found.lost)}",
            not found.lost and not found.misplaced,
            f"neither in Kafka nor a dead letter; {len(found.misplaced)} where they do not belong",
        ),
        ReportLine(
            "relayed twice",
            f"{found.duplicates}",
            found.duplicates == 0 or "relay" in seen.killed,
            f"{', '.join(seen.killed)} were killed; what the relay had sent and not marked in Redis"
            f" went out again. {counted(seen.sent_again, 'message was', 'messages were')} sent to"
            " RabbitMQ once more and dropped by the relay",
        ),
    ]
