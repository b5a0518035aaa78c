"""The only reader of os.environ in the local stack: it is a launcher, not part of Django."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from devtools.localstack.errors import LocalStackError

__all__ = ["MARKER", "StackEnvironment", "marked", "read_environment"]

# Every process of a stack carries a mark in this variable, `<state directory>#<run>` (a stack
# started inside another adds its own), so that what a crash left behind is found by what it is.
MARKER = "EVENTSITE_LOCALSTACK"
BROKERS = ("apache", "tansu")
AMQP_BROKERS = ("rabbitmq", "qpid")


@dataclass(frozen=True, slots=True)
class StackEnvironment:
    """What the caller's environment says about the stack; None where it says nothing."""

    variables: Mapping[str, str]
    database_url: str | None
    redis_url: str | None
    kafka_bootstrap_servers: str | None
    kafka_broker: str | None
    rabbitmq_url: str | None
    amqp_broker: str | None
    web_port: int | None
    postgres_port: int | None
    redis_port: int | None
    kafka_port: int | None
    rabbitmq_port: int | None
    no_color: bool = False  # https://no-color.org


def read_environment() -> StackEnvironment:
    """The environment of this process, the seeds' names filling in where ours are unset.

    Raises LocalStackError when a port is no number or a broker is unknown.
    """
    broker = _text("KAFKA_BROKER")
    if broker and broker not in BROKERS:
        raise LocalStackError(
            f"KAFKA_BROKER={broker} is unknown; use one of: {', '.join(BROKERS)}."
        )
    amqp_broker = _text("AMQP_BROKER")
    if amqp_broker and amqp_broker not in AMQP_BROKERS:
        raise LocalStackError(
            f"AMQP_BROKER={amqp_broker} is unknown; use one of: {', '.join(AMQP_BROKERS)}."
        )
    return StackEnvironment(
        variables=dict(os.environ),
        database_url=_text("DATABASE_URL"),
        redis_url=_text("REDIS_URL") or _redis_url_from_seed_names(),
        kafka_bootstrap_servers=_text("KAFKA_BOOTSTRAP_SERVERS") or _text("KAFKA_BROKERS"),
        kafka_broker=broker,
        rabbitmq_url=_text("RABBITMQ_URL"),
        amqp_broker=amqp_broker,
        web_port=_port("PORT") or _port("APP_PORT"),
        postgres_port=_port("POSTGRES_PORT"),
        redis_port=_port("REDIS_PORT"),
        kafka_port=_port("KAFKA_PORT"),
        rabbitmq_port=_port("RABBITMQ_PORT"),
        no_color=bool(os.environ.get("NO_COLOR")),
    )


def marked(variables: Mapping[str, str], mark: str) -> str:
    """The variable for a process of the stack with this mark, started from an environment."""
    marks = [mark for mark in variables.get(MARKER, "").split(os.pathsep) if mark]
    return os.pathsep.join(dict.fromkeys([*marks, mark]))


def _text(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _port(name: str) -> int | None:
    text = _text(name)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LocalStackError(f"{name}={text} is not a port; use a number from 1 to 65535.")
    return int(text)


def _redis_url_from_seed_names() -> str | None:
    address = _text("REDIS_ADDR")
    if address is None:
        return None
    password = _text("REDIS_PASSWORD")
    credentials = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{credentials}{address}/0"
