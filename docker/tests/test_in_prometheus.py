"""A real Prometheus scrapes a running stack: every target is up, the rules load, and what rules and
panels ask for is there. Each app has had some work, and each handler some that fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from urllib.request import Request, urlopen
from uuid import uuid4

import pika
import psycopg
import pytest
import yaml
from confluent_kafka import Producer
from websockets.sync.client import connect

from devtools.localstack import LocalStack
from devtools.relay.messages import BAD, numbered
from devtools.testing.installed import needs_prometheus, needs_rabbitmq, on_the_stand_in
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.prometheus import FOLDER, Prometheus, prometheus
from devtools.testing.series import Asked, asked_by_dashboards, selectors_in
from orders.events import ORDER_EVENTS_TOPIC
from outbox.rabbitmq.policy import RelayPolicy
from outbox.topics import lane_of

pytestmark = [
    needs_prometheus,
    needs_rabbitmq,
    pytest.mark.skipif(on_the_stand_in, reason="the stand-in has no metrics for Prometheus"),
]

GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
RULES: dict[str, str] = {rule["alert"]: rule["expr"] for group in GROUPS for rule in group["rules"]}
ORDERS = (
    {"user_id": "u1", "amount": 42.5},
    {"customerId": "c1", "items": [{"productId": "p1", "quantity": 2, "price": 10}]},
)
READ = (
    *("/orders?limit=5", "/analytics/summary", "/analytics/top-products"),
    *("/feeds/grace?limit=20", "/feeds/grace?limit=20", "/api/v1/metrics"),
)
RANGE = "30s"  # in place of $__rate_interval: many scrapes
ASKED = tuple(asked_by_dashboards())
TROUBLE = ('status=~"5.."', 'outcome=~"refused|failed"')  # of which there was none
# Lasts as long as an event that nobody knows waits, so that it is seen to wait and to be parked.
UNKNOWN_TYPE_WAIT = "3"


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """All servers and processes, RabbitMQ with its own metrics."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "eventsite.settings.local",
        "LOG_LEVEL": "WARNING",
        "UNKNOWN_TYPE_WAIT": UNKNOWN_TYPE_WAIT,
        "RABBITMQ_METRICS": "on",
    }
    with LocalStack.ephemeral(own_servers=True, extra_env=environment) as started:
        yield started


@pytest.fixture(scope="module")
def watched(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside it, after everything has happened once."""

    def address_of(service: str, port: int) -> str:
        if service == "rabbitmq":
            return f"127.0.0.1:{stack.env['RABBITMQ_METRICS_PORT']}"
        return f"127.0.0.1:{stack.process(service).program.port}"

    with prometheus(tmp_path_factory.mktemp("prometheus"), address_of) as started:
        use(stack)
        disturb(stack)
        with lane_held(stack):
            assert settles(lambda: started.has("outbox_lanes_held"))
        yield started


def ask(stack: LocalStack, method: str, path: str, value: Any = None) -> Any:
    """One request to the web process; the answer's body."""
    body = None if value is None else json.dumps(value).encode()
    request = Request(f"{stack.base_url}{path}", body, method=method)
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def use(stack: LocalStack) -> None:
    """What users do, of each app."""
    for body in ORDERS:
        placed = ask(stack, "POST", "/orders", body)
    ask(stack, "POST", f"/orders/{placed['orderId']}/pay")
    ask(stack, "POST", "/follow", {"follower_id": "grace", "followee_id": "ada"})
    with (
        connect(stack.base_url.replace("http", "ws") + "/ws/feeds/grace", proxy=None) as feed,
        connect(stack.base_url.replace("http", "ws") + "/ws", proxy=None),
    ):
        ask(stack, "POST", "/posts", {"author_id": "ada", "content": "Hello."})
        feed.recv(timeout=PATIENCE)
    message = {"recipient": "+905000000000", "content": "Your code is 1234"}
    ask(stack, "POST", "/api/v1/notifications", message | {"channel": "sms", "priority": "high"})
    for path in READ:
        ask(stack, "GET", path)
    relayed = [numbered("watched", number).body for number in range(3)]
    with pika.BlockingConnection(pika.URLParameters(stack.env["RABBITMQ_URL"])) as connection:
        channel = connection.channel()
        for sent in (*relayed, BAD["no-json"].body):
            channel.basic_publish("", RelayPolicy(url="", dedupe_url="").queue, sent)


def disturb(stack: LocalStack) -> None:
    """What others send, and what no release knows: passed by, parked, waited for, tried again."""
    topic = ORDER_EVENTS_TOPIC.name
    producer = Producer({"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"]})
    producer.produce(topic, b"{", key=b"garbage")
    strange: dict[str, str | bytes | None] = {"ce_id": str(uuid4()), "ce_type": "PARCEL_LOST"}
    producer.produce(topic, b"{}", key=b"strange", headers=strange)
    assert producer.flush(PATIENCE) == 0
    statement: LiteralString = """
        INSERT INTO event_outbox (event_id, lane, topic, key, type, source, payload, traceparent,
                                  correlation_id)
        VALUES (%s, %s, %s, 'watched', 'NOT_YET_KNOWN', '/orders', '{}', '', '')
    """
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        connection.execute(statement, (uuid4(), lane_of("watched"), topic))


@contextmanager
def lane_held(stack: LocalStack) -> Iterator[None]:
    """A session holds a lane, as a drain does."""
    url = stack.env["DATABASE_URL"]
    with psycopg.connect(url, application_name="watching") as connection:
        connection.execute("SELECT FROM outbox_lane WHERE lane = 63 FOR UPDATE")
        yield


def missing(names: Iterable[str], there: Callable[[str], bool]) -> list[str]:
    """Those that do not come to be there."""
    left = sorted(names)

    def come() -> bool:
        left[:] = [name for name in left if not there(name)]
        return not left

    settles(come, within=PATIENCE / 3)
    return left


def test_every_target_is_up(stack: LocalStack, watched: Prometheus) -> None:
    expected = {unit.name for unit in stack.units} | {"rabbitmq", "prometheus"}

    def states() -> list[str]:
        return [each["health"] for each in watched.get("targets", state="active")["activeTargets"]]

    assert settles(lambda: states() == ["up"] * len(expected)), watched.get("targets")


def test_every_rule_is_loaded_and_evaluated(watched: Prometheus) -> None:
    def rules() -> dict[str, dict[str, Any]]:
        groups = watched.get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    assert rules().keys() == RULES.keys()
    assert settles(lambda: all(rule["health"] != "unknown" for rule in rules().values()))
    assert {name: rule["lastError"] for name, rule in rules().items() if "lastError" in rule} == {}


def test_every_rule_is_about_series_that_exist(watched: Prometheus) -> None:
    asked = {selector for rule in RULES.values() for selector in selectors_in(rule)}
    # Some jobs come every few minutes; one shows that the label is ours and not the scrape's.
    asked = {re.sub(r'\{job="\w+"', '{job="audit"', selector) for selector in asked}
    assert missing(asked, watched.has) == []


def test_a_series_that_nobody_counts_is_missed(watched: Prometheus) -> None:
    assert watched.has('process_up{process="web"}')
    assert not watched.has("process_upp")
    assert not watched.has('process_up{process="bee"}')


def test_every_panel_asks_for_series_that_exist(watched: Prometheus) -> None:
    asked = {
        selector
        for each in ASKED
        if each.language == "promql"
        for selector in selectors_in(each.query)
    }
    assert missing(asked, watched.has) == []


def test_every_panel_is_answered(watched: Prometheus) -> None:
    """All but those that ask for trouble of a kind that there was none of."""
    queries = {each.query for each in ASKED if each.language == "promql"}
    passed_over = {query for query in queries if any(each in query for each in TROUBLE)}
    assert all(any(each in query for query in passed_over) for each in TROUBLE)
    asked = {query.replace("$__rate_interval", RANGE) for query in queries - passed_over}
    assert len(asked) > 100
    assert missing(asked, watched.returns) == []


def test_every_panel_of_the_database_is_answered(stack: LocalStack, watched: Prometheus) -> None:
    statements = {each for each in ASKED if each.language == "sql"}
    assert statements
    with psycopg.connect(stack.env["DATABASE_URL"], autocommit=True) as connection:

        def answered(statement: Asked) -> bool:
            return bool(connection.execute(_with_times(statement.query)).fetchall())

        assert settles(lambda: all(map(answered, statements)))


def _with_times(statement: str) -> bytes:
    """As Grafana sends it: a range of an hour in place of its macros."""
    now = datetime.now(UTC)
    for macro, moment in (
        ("$__timeFrom()", now - timedelta(hours=1)),
        ("$__timeTo()", now + timedelta(minutes=1)),
    ):
        statement = statement.replace(macro, f"'{moment:%Y-%m-%dT%H:%M:%SZ}'")
    assert "$__" not in statement
    return statement.encode()
