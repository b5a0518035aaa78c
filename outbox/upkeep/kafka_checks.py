"""The checks of Kafka: topics, and how fast the partitions of a lost member are taken over."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from outbox import conf
from outbox.bridge import unread
from outbox.declaration import Route
from outbox.kafka import admin, groups
from outbox.kafka.admin import TopicConfig
from outbox.kafka.consumer import MAX_POLL_MS
from outbox.kafka.reasons import why_away
from outbox.topics import Topic
from outbox.upkeep.check_result import CheckResult, Level, judge

__all__ = ["check_kafka", "shorten_takeovers", "slow_takeovers"]

REPLICAS = 3
MIN_INSYNC = 2


def check_kafka() -> Iterator[CheckResult]:
    """The checks of every declared topic; one error if Kafka does not answer."""
    wanted = conf.all_topics()
    try:
        found = admin.topic_configs([topic.name for topic in wanted])
        slow = list(slow_takeovers())
    except admin.KafkaUnavailable as error:
        reason = why_away(error)
        yield CheckResult(Level.ERROR, "kafka", reason.found, means=reason.means)
        return
    for topic in wanted:
        if topic.name in found:
            yield from _topic(topic, found[topic.name])
        else:
            yield CheckResult(
                Level.ERROR,
                "kafka",
                f"{topic.name} does not exist",
                means="Run manage.py create_topics.",
            )
    for route in conf.routes():
        if route.topic.name in found:
            yield from _added_partitions(route, found[route.topic.name])
    yield from slow


def _added_partitions(route: Route, found: TopicConfig) -> Iterator[CheckResult]:
    """More partitions than declared are no fault of the server and stop no deployment."""
    added = range(route.topic.partitions, found.partitions)
    if lacking := unread.without_position(route, added):
        yield CheckResult(
            Level.WARNING,
            "kafka",
            f"{route.topic.name}: {route.handler} does not read partitions {lacking}",
            means="Somebody added them to the topic, and nothing of them is applied. To read them from "
            f"their beginning run {unread.advice(route, lacking)}.",
        )


def _topic(topic: Topic, found: TopicConfig) -> Iterator[CheckResult]:
    yield judge(
        "kafka",
        f"{topic.name}: {found.partitions} partitions",
        good=found.partitions >= topic.partitions,
        risk="",
        means=f"The code expects {topic.partitions}, and the order of keys depends on it. "
        "manage.py create_topics says what to do.",
    )
    insync = _number(found.values.get("min.insync.replicas", ""))
    yield judge(
        "kafka",
        f"{topic.name}: {found.replicas} replicas, min.insync.replicas = {insync}",
        good=found.replicas >= REPLICAS and (insync or 0) >= MIN_INSYNC,
        risk="few-replicas",
        means="The loss of one broker may lose published events; the audit then finds those that no "
        f"handler had applied. Set {REPLICAS} replicas (KAFKA_REPLICATION_FACTOR, before the topic "
        f"is created) and min.insync.replicas = {MIN_INSYNC}.",
    )
    for setting in _TOPIC_SETTINGS:
        value = found.values.get(setting.name, setting.unset)
        wanted = setting.wanted(topic)
        yield judge(
            "kafka",
            f"{topic.name}: {setting.name} = {value or 'unknown'}",
            good=setting.good(value, wanted),
            risk=setting.risk,
            means=f"{setting.means} Set {setting.name} = {wanted}{setting.way}.",
        )


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _if_number(is_good: Callable[[int, int], bool]) -> Callable[[str, str], bool]:
    return lambda value, wanted: (n := _number(value)) is not None and is_good(n, int(wanted))


class _TopicSetting(NamedTuple):
    """A setting of a topic: what is wanted, how the value is compared with it, what breaks else, and
    `way` to set it. `unset` stands for the value if the broker names none."""

    name: str
    wanted: Callable[[Topic], str]
    good: Callable[[str, str], bool]
    risk: str
    means: str
    way: str = ""
    unset: str = ""


_ALTER = ", for example by manage.py create_topics --alter"

_TOPIC_SETTINGS = (
    _TopicSetting(
        "unclean.leader.election.enable",
        lambda _: "false",
        operator.eq,
        "unclean-election",
        "A replica that lags may become leader and cut off the end of the log.",
        unset="false",
    ),
    _TopicSetting(
        "retention.ms",
        lambda topic: str(topic.retention_hours * 3_600_000),
        operator.eq,
        "other-retention",
        "The retention of receipts and outbox follows the retention in the code.",
        way=_ALTER,
    ),
    _TopicSetting(
        "segment.ms",
        lambda _: str(admin.SEGMENT_MS),
        _if_number(operator.le),
        "long-segments",
        "Kafka deletes only whole segments, so a topic with few messages keeps them for so much longer than "
        "its retention, and by then their receipts may be gone.",
        way=_ALTER,
    ),
    _TopicSetting(
        "cleanup.policy",
        lambda _: "delete",
        operator.eq,
        "compacted",
        "A compacted topic forgets earlier events of a key, whether they were applied or not.",
    ),
    _TopicSetting(
        "max.message.bytes",
        lambda topic: str(topic.max_message_bytes),
        _if_number(operator.ge),
        "small-messages",
        "The code allows larger events; a message that Kafka refuses becomes a dead letter.",
    ),
)


def shorten_takeovers() -> str:
    """Have the partitions of a dead bridge wait for another as short as the broker allows; what was
    reached, in words, empty where the client decides (classic protocol). Raises KafkaUnavailable."""
    found = groups.shorten_sessions(_groups())
    if not found:
        return ""
    return f"A bridge that dies is replaced after {_in_seconds(max(found.values()))}."


def slow_takeovers() -> Iterator[CheckResult]:
    """Nothing where all is well. Events are late, but none is lost: no reason to stop a deployment.
    Raises KafkaUnavailable."""
    found = groups.sessions(_groups())
    longest = max(found.values(), default=0)
    if longest <= groups.SESSION_MS:
        return
    limits = groups.broker_limits()
    means = (
        f"When a bridge dies, its partitions wait {_in_seconds(longest)} for another; when one stands "
        f"still, so much longer than {_in_seconds(MAX_POLL_MS)} (max.poll.interval.ms). "
    )
    if limits and groups.wanted(*limits)[0] < longest:
        advice = "Run manage.py prepare, which sets less for our groups."
    else:
        reason = "allows no less for a group" if limits else "does not say more"
        advice = (
            f"The broker {reason}: set group.consumer.min.session.timeout.ms = "
            f"{groups.SESSION_MS} and group.consumer.min.heartbeat.interval.ms = "
            f"{groups.HEARTBEAT_MS} there and run manage.py prepare; or set "
            f"group.consumer.session.timeout.ms = {groups.SESSION_MS} for all groups."
        )
    found_ms = f"consumer.session.timeout.ms of our groups = {longest}"
    yield CheckResult(Level.WARNING, "kafka", found_ms, means=means + advice)


def _groups() -> list[str]:
    return [route.handler for route in conf.routes()]


def _in_seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.0f} s"
