"""The report on the servers: what each setting can lose, and when that stops a deployment."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from outbox import conf
from outbox.inbox.positions import create_positions
from outbox.kafka import admin
from outbox.kafka.admin import TopicConfig
from outbox.models import BridgePosition, OutboxLane
from outbox.tests.backbone_rows import ORDER_EVENTS
from outbox.topics import Topic
from outbox.upkeep.check_result import CheckResult, Level
from outbox.upkeep.postgres_checks import check_standbys
from outbox.upkeep.server_checks import check_servers

pytestmark = pytest.mark.django_db

GOOD_TOPIC = TopicConfig(
    partitions=12,
    replicas=3,
    values={
        "min.insync.replicas": "2",
        "unclean.leader.election.enable": "false",
        "retention.ms": str(7 * 24 * 3_600_000),
        "segment.ms": str(24 * 3_600_000),
        "cleanup.policy": "delete",
        "max.message.bytes": "1000000",
    },
)


def good(topic: Topic) -> TopicConfig:
    values = {
        **GOOD_TOPIC.values,
        "retention.ms": str(topic.retention_hours * 3_600_000),
        "max.message.bytes": str(topic.max_message_bytes),
    }
    return replace(GOOD_TOPIC, partitions=topic.partitions, values=values)


@pytest.fixture
def good_kafka(monkeypatch: pytest.MonkeyPatch) -> dict[str, TopicConfig]:
    found = {topic.name: good(topic) for topic in conf.all_topics()}
    monkeypatch.setattr(admin, "topic_configs", lambda _: found)
    return found


@pytest.fixture(autouse=True)
def session_of_ours(db: None) -> None:
    """Tests have a longer limit than our processes."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '8s'")


@pytest.fixture(autouse=True)
def positions(db: None) -> None:
    for route in conf.routes():
        starts = dict.fromkeys(range(route.topic.partitions), 0)
        state = admin.TopicState(route.topic.name, uuid4(), starts, starts)
        create_positions(route.handler, state, since="earliest")


def violations() -> dict[str, CheckResult]:
    return {
        result.risk or result.found: result
        for result in check_servers()
        if result.level is not Level.OK
    }


def test_a_single_postgresql_is_a_warning_here_and_an_error_in_production(
    good_kafka: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {name: found.level for name, found in violations().items()} == {
        "single-postgresql": Level.WARNING
    }
    monkeypatch.setattr(settings, "OUTBOX_STRICT_SERVERS", True)
    [found] = violations().values()
    assert (found.level, "COMMIT waits for no standby" in found.means) == (Level.ERROR, True)
    monkeypatch.setattr(settings, "OUTBOX_ACCEPTED_RISKS", ["single-postgresql"])
    [found] = violations().values()
    assert (found.level, found.means[:29]) == (Level.WARNING, "Accepted as single-postgresql")


def test_an_accepted_risk_that_does_not_exist_is_told(
    good_kafka: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "OUTBOX_ACCEPTED_RISKS", ["single-postgres"])
    assert "ACCEPTED_RISKS names single-postgres" in violations()


def test_commits_that_do_not_wait_state_their_window(good_kafka: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert "of the last 600 ms" in violations()["asynchronous-commit"].means


@pytest.mark.parametrize(
    "dropped",
    [
        "idle_in_transaction_session_timeout = 0",
        "idle_in_transaction_session_timeout = '20s'",
        "lock_timeout = 0",
        "plan_cache_mode = auto",
    ],
)
def test_options_that_a_pooler_has_dropped_are_found(good_kafka: object, dropped: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL {dropped}")
    assert set(violations()) == {"single-postgresql", "session-options"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DateStyle", "SQL, DMY"),
        ("DateStyle", "German"),
        ("default_transaction_isolation", "repeatable read"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
    ],
)
def test_defaults_that_the_code_does_not_expect_are_found(
    good_kafka: object, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(settings, "OUTBOX_STRICT_SERVERS", False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config(%s, %s, true)", (name, value))
    [found] = [each for key, each in violations().items() if key != "single-postgresql"]
    assert found.level is Level.ERROR  # everywhere, and none that can be accepted
    assert found.risk == ""
    assert name in found.found


def test_another_order_of_dates_does_no_harm(good_kafka: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL DateStyle = 'ISO, DMY'")
    assert set(violations()) == {"single-postgresql"}


@pytest.mark.parametrize(
    ("names", "commit", "level"),
    [
        ("", "on", Level.ERROR),
        ("ANY 1 (a, b)", "on", Level.OK),
        ("*", "remote_apply", Level.OK),
        ("ANY 1 (a, b)", "local", Level.ERROR),
        ("ANY 1 (a, b)", "off", Level.ERROR),
    ],
)
def test_a_quorum_is_one_that_commits_wait_for(names: str, commit: str, level: Level) -> None:
    assert check_standbys(names, commit).level is level


@pytest.mark.parametrize(
    ("change", "risk"),
    [
        ({"replicas": 2}, "few-replicas"),
        ({"min.insync.replicas": "1"}, "few-replicas"),
        ({"min.insync.replicas": ""}, "few-replicas"),
        ({"unclean.leader.election.enable": "true"}, "unclean-election"),
        ({"retention.ms": "-1"}, "other-retention"),
        ({"retention.ms": ""}, "other-retention"),
        ({"segment.ms": str(7 * 24 * 3_600_000)}, "long-segments"),
        ({"cleanup.policy": "compact"}, "compacted"),
        ({"cleanup.policy": "compact,delete"}, "compacted"),
        ({"max.message.bytes": "999999"}, "small-messages"),
    ],
)
def test_each_setting_of_a_topic_counts(
    good_kafka: dict[str, TopicConfig], change: dict[str, Any], risk: str
) -> None:
    name = ORDER_EVENTS.name
    replicas = change.get("replicas", 3)
    values = {**GOOD_TOPIC.values, **{k: v for k, v in change.items() if k != "replicas"}}
    good_kafka[name] = replace(GOOD_TOPIC, replicas=replicas, values=values)
    assert set(violations()) == {"single-postgresql", risk}


def test_dead_letter_topics_count_too(good_kafka: dict[str, TopicConfig]) -> None:
    topic = ORDER_EVENTS.dlq_topic
    good_kafka[topic.name] = replace(good(topic), replicas=1)
    assert violations()["few-replicas"].found.startswith(topic.name)
    del good_kafka[topic.name]
    assert f"{topic.name} does not exist" in violations()


@pytest.mark.parametrize("what", ["lanes", "positions", "partitions", "topic"])
def test_what_would_move_keys_is_an_error_everywhere(
    good_kafka: dict[str, TopicConfig], what: str
) -> None:
    name = ORDER_EVENTS.name
    match what:
        case "lanes":
            OutboxLane.objects.get(lane=63).delete()
        case "positions":
            BridgePosition.objects.filter(partition=11, handler="record_sales").delete()
        case "partitions":
            good_kafka[name] = replace(GOOD_TOPIC, partitions=11)
        case "topic":
            del good_kafka[name]
    levels = {found.level for risk, found in violations().items() if risk != "single-postgresql"}
    assert levels == {Level.ERROR}


def test_servers_that_are_away_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: object) -> None:
        raise admin.KafkaUnavailable("away")

    monkeypatch.setattr(admin, "topic_configs", away)
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:9/0")
    errors = {f.server for f in violations().values() if f.level is Level.ERROR}
    assert errors == {"kafka", "redis"}


def test_a_redis_that_forgets_is_found(good_kafka: object) -> None:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        before = client.config_get("maxmemory-policy")["maxmemory-policy"]
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert "redis-evicts" in violations()
        finally:
            client.config_set("maxmemory-policy", before)
    assert "redis-evicts" not in violations()


def test_the_real_servers_of_this_run_pass_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    call_command("create_topics", verbosity=0, stdout=StringIO())
    out = StringIO()
    call_command("check_servers", stdout=out)
    lines = out.getvalue().splitlines()
    assert any(
        line.split()[:2] == ["warning", "kafka"] and "[few-replicas]" in line for line in lines
    )
    assert any("redis      maxmemory-policy = noeviction" in line for line in lines)
    monkeypatch.setattr(settings, "OUTBOX_STRICT_SERVERS", True)
    with pytest.raises(CommandError, match="ACCEPTED_RISKS"):
        call_command("check_servers", stdout=StringIO())
    risks = ["single-postgresql", "few-replicas"]
    monkeypatch.setattr(settings, "OUTBOX_ACCEPTED_RISKS", risks)
    call_command("check_servers", stdout=StringIO())


def test_a_retention_that_was_changed_by_hand_is_set_right() -> None:
    call_command("create_topics", stdout=StringIO())
    topic = ORDER_EVENTS
    admin.alter_retention([replace(topic, retention_hours=1)])
    try:
        assert violations()["other-retention"].found == f"{topic.name}: retention.ms = 3600000"
    finally:
        call_command("create_topics", "--alter", stdout=StringIO())
    assert "other-retention" not in violations()
