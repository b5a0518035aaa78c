"""What the environment says: our own names win, the older ones work when ours are unset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from django.db.utils import ConnectionHandler
from psycopg import OperationalError
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from eventsite.localstack.environment import read_environment
from eventsite.settings.base import _database
from eventsite.settings.env import REPOSITORY, Environment, environment

NAMES = (
    "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "REDIS_URL", "REDIS_ADDR", "REDIS_PASSWORD", "PORT",
    "APP_PORT", "DATABASE_URL", "RABBITMQ_URL", "LOG_LEVEL", "WEBHOOK_URL",
    "RATE_LIMIT_PER_CHANNEL", "WORKER_CONCURRENCY", "API_KEYS_REQUIRED", "RATE_LIMIT",
    "RATE_LIMIT_PATIENCE", "TRUSTED_PROXIES", "OTEL_EXPORTER_OTLP_ENDPOINT", "JAEGER_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED",
)  # fmt: skip


class Bare(Environment):
    """Without the file `.env` of whoever runs this."""

    model_config = SettingsConfigDict(env_file=None)


@pytest.fixture(autouse=True)
def _nothing_set() -> Iterator[None]:
    """None of the names is set at first, and what a test sets is undone."""
    with patch.dict(os.environ):
        for name in NAMES:
            os.environ.pop(name, None)
        yield


def read(**variables: str) -> Environment:
    os.environ.update(variables)
    return Bare()


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("KAFKA_BROKERS", "k:1,l:2", "kafka_bootstrap_servers", "k:1,l:2"),
        ("KAFKA_BOOTSTRAP_SERVERS", "k:1", "kafka_bootstrap_servers", "k:1"),
        ("REDIS_ADDR", "r:1", "redis_url", "redis://r:1/0"),
        ("REDIS_URL", "redis://r:2/3", "redis_url", "redis://r:2/3"),
        ("REDIS_PASSWORD", "p", "redis_url", "redis://:p@localhost:6379/0"),
        ("REDIS_PASSWORD", "a/b@c:d", "redis_url", "redis://:a%2Fb%40c%3Ad@localhost:6379/0"),
        ("APP_PORT", "81", "port", 81),
        ("PORT", "82", "port", 82),
        ("DATABASE_URL", "postgresql://d/x", "database_url", "postgresql://d/x"),
        ("RABBITMQ_URL", "amqp://q", "rabbitmq_url", "amqp://q"),
        ("LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("WEBHOOK_URL", "https://w.example/x", "webhook_url", "https://w.example/x"),
        ("RATE_LIMIT_PER_CHANNEL", "7", "rate_limit_per_channel", 7),
        ("WORKER_CONCURRENCY", "5", "worker_concurrency", 5),
        ("API_KEYS_REQUIRED", "1", "api_keys_required", True),
        ("RATE_LIMIT", "5/s", "rate_limit", "5/s"),
        ("RATE_LIMIT_PATIENCE", "0.2", "rate_limit_patience", 0.2),
        ("TRUSTED_PROXIES", "2", "trusted_proxies", 2),
    ],
)
def test_every_name_works(variable: str, value: str, field: str, expected: object) -> None:
    assert getattr(read(), field) != expected
    assert getattr(read(**{variable: value}), field) == expected


@pytest.mark.parametrize(
    ("ours", "older", "field"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "kafka_bootstrap_servers"),
        ("PORT", "APP_PORT", "port"),
    ],
)
def test_our_own_name_wins(ours: str, older: str, field: str) -> None:
    assert str(getattr(read(**{ours: "1", older: "2"}), field)) == "1"
    # An empty one is one that is not set: compose files pass what they do not have so.
    assert str(getattr(read(**{ours: "", older: "2"}), field)) == "2"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1"}, "http://o:1/v1/traces"),
        ({"JAEGER_ENDPOINT": "http://j:1/"}, "http://j:1/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1", "JAEGER_ENDPOINT": "http://j:1"},
            "http://o:1/v1/traces",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x",
            },
            "http://t:1/x",
        ),
        ({"JAEGER_ENDPOINT": "http://j:1", "OTEL_SDK_DISABLED": "True"}, ""),
        ({"JAEGER_ENDPOINT": "http://j:1", "OTEL_SDK_DISABLED": "false"}, "http://j:1/v1/traces"),
    ],
)
def test_where_spans_go(given: dict[str, str], expected: str) -> None:
    assert read(**given).traces_endpoint == expected


def test_redis_url_wins_over_both_older_names() -> None:
    found = read(REDIS_URL="redis://r:1/1", REDIS_ADDR="x:9", REDIS_PASSWORD="p")
    assert found.redis_url == "redis://r:1/1"


def test_the_address_of_the_database_may_carry_parameters() -> None:
    url = "postgresql://u:p%40@db:6000/orders"
    plain = _database(url)["OPTIONS"]
    given = _database(f"{url}?sslmode=verify-full&connect_timeout=9&options=-c%20work_mem%3D8MB")
    assert (given["HOST"], given["PORT"], given["NAME"]) == ("db", "6000", "orders")
    assert given["OPTIONS"] == plain | {
        "sslmode": "verify-full",
        "connect_timeout": "9",
        "options": f"{plain['options']} -c work_mem=8MB",
    }


def test_a_database_without_the_encryption_that_is_asked_for_is_refused() -> None:
    database = _database(f"{environment().database_url}?sslmode=require")
    with pytest.raises(OperationalError, match="does not support SSL"):
        ConnectionHandler({"default": database})["default"].connect()


def test_the_local_stack_reads_the_same() -> None:
    read(KAFKA_BROKERS="k:1", REDIS_ADDR="r:1", REDIS_PASSWORD="a/b", APP_PORT="81")
    ours, stack = Bare(), read_environment()
    assert stack.kafka_bootstrap_servers == ours.kafka_bootstrap_servers == "k:1"
    assert stack.redis_url == ours.redis_url == "redis://:a%2Fb@r:1/0"
    assert stack.web_port == ours.port == 81


@pytest.mark.parametrize(
    ("variable", "value"), [("TRUSTED_PROXIES", "-1"), ("APP_PORT", "web"), ("PORT", "web")]
)
def test_what_cannot_be_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ValidationError):
        read(**{variable: value})


def test_the_example_lists_every_name() -> None:
    text = (REPOSITORY / ".env.example").read_text()
    listed = set(re.findall(r"\b[A-Z][A-Z_]+[A-Z]\b", text))
    read_names = set()
    for name, field in Environment.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [name.upper()])
        read_names |= {str(choice) for choice in choices}
    assert read_names <= listed
    assert set(NAMES) <= listed
