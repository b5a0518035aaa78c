"""The form of addresses and names in the environment. No message repeats a value, because it
may be a secret."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

__all__ = [
    "AmqpAddress",
    "DatabaseAddress",
    "QueueName",
    "RedisAddress",
    "RedisHost",
    "TopicName",
]

QUEUE_BYTES = 255 - len(".dlx")  # the dead-letter exchange has the name of the queue in its own
TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _amqp_address(text: str) -> str:
    if not _is_address(text, {"amqp", "amqps"}):
        raise PydanticCustomError(
            "amqp_address", "must be amqp://user:password@host:port/vhost, or amqps://"
        )
    return text


def _redis_address(text: str) -> str:
    """Empty: another one is meant."""
    if text and not text.startswith("unix://") and not _is_address(text, {"redis", "rediss"}):
        raise PydanticCustomError(
            "redis_address", "must be redis://host:port/database, or rediss:// or unix://"
        )
    return text


def _redis_host(text: str) -> str:
    if {"/", "@"} & set(text) or not _is_address(f"redis://{text}", {"redis"}):
        raise PydanticCustomError("redis_host", "must be host:port")
    return text


def _database_address(text: str) -> str:
    """The host may be missing: it may be the folder of a socket, in `?host=`."""
    if not _is_address(text, {"postgres", "postgresql"}, has_host=False):
        raise PydanticCustomError(
            "database_address", "must be postgresql://user:password@host:port/database"
        )
    return text


def _is_address(text: str, schemes: set[str], *, has_host: bool = True) -> bool:
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) or not has_host
        return parts.scheme in schemes and named and parts.port != 0
    except ValueError:  # a port that is no number; its text may be a piece of the password
        return False


def _queue_name(text: str) -> str:
    if not text.strip() or len(text.encode()) > QUEUE_BYTES:
        raise PydanticCustomError(
            "queue_name", "must be a name of 1 to {most} bytes", {"most": QUEUE_BYTES}
        )
    return text


def _topic_name(text: str) -> str:
    if not TOPIC.fullmatch(text) or text in (".", ".."):
        raise PydanticCustomError(
            "topic_name",
            "must be a name of 1 to 249 letters, digits, dots, hyphens and underscores",
        )
    return text


AmqpAddress = Annotated[str, AfterValidator(_amqp_address)]
DatabaseAddress = Annotated[str, AfterValidator(_database_address)]
RedisAddress = Annotated[str, AfterValidator(_redis_address)]
RedisHost = Annotated[str, AfterValidator(_redis_host)]
QueueName = Annotated[str, AfterValidator(_queue_name)]
TopicName = Annotated[str, AfterValidator(_topic_name)]
