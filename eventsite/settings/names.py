"""The form of addresses and names in the environment. No message repeats a value, because it
may be a secret."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

__all__ = ["AmqpAddress", "QueueName", "RedisAddress", "TopicName"]

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


def _is_address(text: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
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
RedisAddress = Annotated[str, AfterValidator(_redis_address)]
QueueName = Annotated[str, AfterValidator(_queue_name)]
TopicName = Annotated[str, AfterValidator(_topic_name)]
