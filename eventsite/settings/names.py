"""The form of addresses and names in the environment. No message repeats a value, because it
may be a secret."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

__all__ = ["AmqpAddress", "QueueName", "RedisAddress", "TopicName"]

QUEUE_BYTES = 255 - len(".dlx")  # the dead-letter exchange has the name of the queue in its own
TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")


def _must_be(wanted: str, holds: Callable[[str], bool]) -> AfterValidator:
    def check(text: str) -> str:
        if not holds(text):
            raise PydanticCustomError("form", "must be {wanted}", {"wanted": wanted})
        return text

    return AfterValidator(check)


def _is_address(text: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number; its text may be a piece of the password
        return False


def _is_redis(text: str) -> bool:
    """Empty: another one is meant."""
    return not text or text.startswith("unix://") or _is_address(text, "redis", "rediss")


def _is_queue(text: str) -> bool:
    return bool(text.strip()) and len(text.encode()) <= QUEUE_BYTES


AmqpAddress = Annotated[
    str,
    _must_be(
        "amqp://user:password@host:port/vhost, or amqps://",
        lambda text: _is_address(text, "amqp", "amqps"),
    ),
]
RedisAddress = Annotated[
    str, _must_be("redis://host:port/database, or rediss:// or unix://", _is_redis)
]
QueueName = Annotated[str, _must_be(f"a name of 1 to {QUEUE_BYTES} bytes", _is_queue)]
TopicName = Annotated[
    str,
    _must_be(
        "a name of 1 to 249 letters, digits, dots, hyphens and underscores",
        lambda text: TOPIC.fullmatch(text) is not None,
    ),
]
