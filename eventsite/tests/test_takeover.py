"""How soon the partitions of a dead bridge go to another, on a broker whose groups wait for 45 s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from io import StringIO

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from django.conf import settings
from django.core.management import call_command

from devtools.probe.events import PROBE_TOPIC
from devtools.testing.advice import follow
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import PROBE_HANDLER, settles
from devtools.testing.processes import Spec, running_together, spec_of
from outbox import conf
from outbox.kafka import groups
from outbox.upkeep import kafka_checks

STOCK_MS = 45_000
HANDLERS = [route.handler for route in conf.routes()]


def _set_sessions(operation: AlterConfigOpType) -> None:
    client = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    entry = ConfigEntry(
        "consumer.session.timeout.ms", str(STOCK_MS), incremental_operation=operation
    )
    wanted = [
        ConfigResource(ResourceType.GROUP, name, incremental_configs=[entry]) for name in HANDLERS
    ]
    for future in client.incremental_alter_configs(wanted).values():
        future.result(PATIENCE)


@pytest.fixture
def _stock_groups(pipeline: None) -> Iterator[None]:
    """Until the end of the test, the groups of our handlers wait as a stock broker has them wait."""
    _set_sessions(AlterConfigOpType.SET)
    assert settles(lambda: set(groups.sessions(HANDLERS).values()) == {STOCK_MS})
    yield
    _set_sessions(AlterConfigOpType.DELETE)


def report() -> str:
    out = StringIO()
    call_command("check_servers", stdout=out)
    return out.getvalue()


def bridge_of_probe() -> Spec:
    spec = spec_of("bridge")
    return replace(spec, command=(*spec.command, "--handler", PROBE_HANDLER))


def holders(client: Consumer) -> list[str]:
    """Who holds each partition of the probe's topic, by the marks of their commits."""
    keys = [TopicPartition(PROBE_TOPIC.name, number) for number in range(PROBE_TOPIC.partitions)]
    return [(found.metadata or "").partition("-")[0] for found in client.committed(keys, 5)]


@needs_apache_kafka  # Tansu keeps no settings of groups
@pytest.mark.usefixtures("_stock_groups")
def test_a_bridge_that_is_killed_for_good_is_replaced_within_ten_seconds() -> None:
    [line] = [line for line in report().splitlines() if "wait 45 s for another" in line]
    follow(line)  # manage.py prepare
    assert "consumer.session.timeout.ms" not in report()
    config = {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": PROBE_HANDLER}
    with closing(Consumer(config)) as client:
        nobody = {"", *holders(client)}  # the marks of bridges of other tests stay
        with running_together([bridge_of_probe(), bridge_of_probe()]) as [first, _]:
            assert settles(lambda: len(set(holders(client)) - nobody) == 2)
            both = set(holders(client)) - nobody
            first.kill()
            assert settles(lambda: len(set(holders(client))) == 1, within=10)
            assert set(holders(client)) < both


@needs_apache_kafka  # Tansu keeps no settings of groups
@pytest.mark.usefixtures("_stock_groups")
def test_a_broker_that_allows_no_less_is_named_with_both_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "broker_limits", lambda: (STOCK_MS, 5000))
    assert kafka_checks.shorten_takeovers() == "A bridge that dies is replaced after 45 s."
    [slow] = kafka_checks.slow_takeovers()
    assert slow.found == "consumer.session.timeout.ms of our groups = 45000"
    for words in (
        "its partitions wait 45 s for another",
        "so much longer than 60 s (max.poll.interval.ms)",
        "group.consumer.min.session.timeout.ms = 6000",
        "group.consumer.session.timeout.ms = 6000",
    ):
        assert words in slow.means


@pytest.mark.parametrize(
    ("limits", "session", "heartbeat"),
    [
        ((6000, 1500), 6000, 1500),
        ((1000, 100), 6000, 1500),
        ((45_000, 5000), 45_000, 5000),
        ((6000, 5000), 15_000, 5000),  # one heartbeat may be late
    ],
)
def test_a_session_is_as_short_as_the_broker_allows(
    limits: tuple[int, int], session: int, heartbeat: int
) -> None:
    assert groups.wanted(*limits) == (session, heartbeat)


def test_with_the_classic_protocol_the_client_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "KAFKA_GROUP_PROTOCOL", "classic")
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")  # nobody is asked
    assert (kafka_checks.shorten_takeovers(), list(kafka_checks.slow_takeovers())) == ("", [])
