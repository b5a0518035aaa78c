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

from devtools.localstack.environment import read_environment
from eventsite.settings.base import _database, _relay
from eventsite.settings.env import REPOSITORY, Environment, environment
from notifications.providers.configured import read_providers
from outbox.rabbitmq.policy import RelayPolicy

NAMES = (
    "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "REDIS_URL", "REDIS_ADDR", "REDIS_PASSWORD", "PORT",
    "APP_PORT", "DATABASE_URL", "RABBITMQ_URL", "LOG_LEVEL", "WEBHOOK_URL", "PROVIDERS",
    "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION", "SMTP_URL", "MAIL_SENDER",
    "RATE_LIMIT_PER_CHANNEL", "WORKER_CONCURRENCY", "API_KEYS_REQUIRED", "RATE_LIMIT",
    "RATE_LIMIT_PATIENCE", "TRUSTED_PROXIES", "OTEL_EXPORTER_OTLP_ENDPOINT", "JAEGER_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", "RABBITMQ_QUEUE", "KAFKA_TOPIC",
    "RABBITMQ_CREATE", "DEDUPE", "DEDUPE_REDIS_URL", "DEDUPE_TTL", "WORKER_COUNT", "MAX_RETRIES",
    "RETRY_INITIAL_DELAY_MS", "RETRY_MAX_DELAY_MS", "CIRCUIT_BREAKER_THRESHOLD",
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


LOGIN = {"KAFKA_SASL_USERNAME": "orders", "KAFKA_SASL_PASSWORD": "secret"}
FILE = str(REPOSITORY / "manage.py")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, {"security.protocol": "SSL"}),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SSL_CA_LOCATION": FILE, **LOGIN},
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "orders",
                "sasl.password": "secret",
                "ssl.ca.location": FILE,
            },
        ),
    ],
)
def test_how_kafka_is_reached(given: dict[str, str], expected: dict[str, str]) -> None:
    assert read(**given).kafka_client_settings() == expected


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "SASL_SSL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs KAFKA_SASL_USERNAME"),
        # What would go out without encryption, or not at all, though somebody meant it to.
        (LOGIN, "uses no login"),
        ({"KAFKA_SSL_CA_LOCATION": FILE}, "does not encrypt"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_LOCATION": FILE},
            "or neither",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": "/no/such/file"},
            "does not point to a file",
        ),
    ],
)
def test_a_way_to_kafka_that_cannot_be_is_refused(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint) as refused:
        read(**given)
    assert "secret" not in str(refused.value.errors(include_input=False, include_url=False))


ALL = ["sms", "email", "push"]


@pytest.mark.parametrize(
    ("given", "channels"),
    [
        ({}, {"log": ALL}),
        ({"WEBHOOK_URL": "https://w.example"}, {"webhook": ALL}),
        # The log never takes a mail, or one would be delivered to it while the mail server is unavailable.
        ({"SMTP_URL": "smtp://m:1025"}, {"smtp": ["email"], "log": ["sms", "push"]}),
        (
            {"SMTP_URL": "smtp://m:1025", "WEBHOOK_URL": "https://w.example"},
            {"smtp": ["email"], "webhook": ALL},
        ),
        ({"SMTP_URL": "smtp://m:1025", "PROVIDERS": '{"a": {"kind": "log"}}'}, {"a": ALL}),
    ],
)
def test_who_sends_which_channel(given: dict[str, str], channels: dict[str, list[str]]) -> None:
    named = read(**given).notification_providers
    found = read_providers(named, mail_domain="example.org")
    assert list(found) == list(channels)
    assert {name: sorted(each.channels) for name, each in found.items()} == {
        name: sorted(each) for name, each in channels.items()
    }


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


def test_a_webhook_alone_is_the_provider_of_all_channels() -> None:
    url = "https://w.example/x"
    alone = read(WEBHOOK_URL=url).notification_providers
    assert alone == {"webhook": {"kind": "webhook", "url": url}}
    [made] = read_providers(alone, mail_domain="d").values()
    assert made.channels == ("sms", "email", "push")
    assert read(PROVIDERS='{"l": {"kind": "log"}}').notification_providers == {"l": {"kind": "log"}}


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


def test_the_relay_has_the_defaults_of_the_program_that_it_replaces() -> None:
    assert RelayPolicy(**_relay(read())) == RelayPolicy(
        url="amqp://guest:guest@localhost:5672/",
        queue="events",
        topic="processed_events",
        dedupe_url="redis://localhost:6379/0",
        dedupe_ttl=86_400.0,
        workers=10,
        max_retries=5,
        retry_initial=0.1,
        retry_max=5.0,
        breaker_requests=5,
        canary_every=60.0,
    )


def test_every_variable_of_the_relay_arrives() -> None:
    fields = _relay(
        read(
            RABBITMQ_URL="amqps://u:p@r:5671/v",
            RABBITMQ_QUEUE="q",
            RABBITMQ_CREATE="always",
            KAFKA_TOPIC="t",
            DEDUPE="off",
            DEDUPE_REDIS_URL="rediss://d:1/2",
            DEDUPE_TTL="60",
            WORKER_COUNT="3",
            MAX_RETRIES="7",
            RETRY_INITIAL_DELAY_MS="20",
            RETRY_MAX_DELAY_MS="300",
            CIRCUIT_BREAKER_THRESHOLD="9",
            CANARY="off",
        )
    )
    assert RelayPolicy(**fields) == RelayPolicy(
        url="amqps://u:p@r:5671/v",
        queue="q",
        create_always=True,
        topic="t",
        dedupe=False,
        dedupe_url="rediss://d:1/2",
        dedupe_ttl=60.0,
        workers=3,
        max_retries=7,
        retry_initial=0.02,
        retry_max=0.3,
        breaker_requests=9,
        canary_every=0.0,
    )


BAD_ADDRESSES = ("http://u:secret@h/", "h:5672", "amqp:///", "amqp://u:sec/ret@h/", "amqp://h:0/")


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_all_that_the_relay_cannot_use_is_named_at_once_and_no_secret_told(address: str) -> None:
    os.environ.update(
        RABBITMQ_URL=address,
        RABBITMQ_QUEUE=" ",
        KAFKA_TOPIC="a topic",
        DEDUPE_REDIS_URL="localhost:6379",
        WORKER_COUNT="0",
    )
    with pytest.raises(SystemExit) as ended:
        environment.__wrapped__()
    lines = str(ended.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [
        "RABBITMQ_URL",
        "RABBITMQ_QUEUE",
        "KAFKA_TOPIC",
        "DEDUPE_REDIS_URL",
        "WORKER_COUNT",
    ]
    assert "sec" not in str(ended.value)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("DATABASE_URL", "orders"),
        ("DATABASE_URL", "mysql://u:secret@h/orders"),
        ("DATABASE_URL", "postgresql://u:sec/ret@h/orders"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://:secret@h/"),
        ("REDIS_ADDR", "redis://:secret@h:6379"),
        ("REDIS_ADDR", "h:secret"),
        ("FEED_CACHE_URL", "localhost:6379"),
    ],
)
def test_an_address_that_is_none_is_named_without_its_secret(name: str, address: str) -> None:
    os.environ[name] = address
    with pytest.raises(SystemExit) as ended:
        environment.__wrapped__()
    _, line = str(ended.value).splitlines()
    assert line.startswith(f"  {name}: must be ")
    assert "sec" not in line


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("DATABASE_URL", "postgres://h/orders"),
        ("DATABASE_URL", "postgresql:///orders?host=/var/run/postgresql"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("REDIS_ADDR", "[::1]:6379"),
        ("REDIS_ADDR", "redis"),
    ],
)
def test_an_address_of_another_form_is_taken(name: str, address: str) -> None:
    assert getattr(read(**{name: address}), name.lower()) == address


def test_the_example_lists_every_name() -> None:
    text = (REPOSITORY / ".env.example").read_text()
    listed = set(re.findall(r"\b[A-Z][A-Z_]+[A-Z]\b", text))
    read_names = set()
    for name, field in Environment.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [name.upper()])
        read_names |= {str(choice) for choice in choices}
    assert read_names <= listed
    assert set(NAMES) <= listed
