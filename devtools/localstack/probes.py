"""Whether a server or process answers, asked for real. Each probe raises NotReady when it does not."""

from __future__ import annotations

import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from devtools.localstack.errors import NotReady

__all__ = [
    "Probe",
    "amqp_answers",
    "http_answers",
    "kafka_answers",
    "postgres_answers",
    "redis_answers",
    "wait_until",
]

Probe = Callable[[], None]
TIMEOUT = 2.0  # seconds for one answer
METADATA = 3  # the Kafka protocol's number of the metadata request


def wait_until(probe: Probe, *, seconds: float, alive: Callable[[], bool] = lambda: True) -> None:
    """Ask until the probe passes. Raises NotReady with its last answer at the deadline or on death."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return probe()
        except NotReady as answer:
            if not alive():
                raise NotReady("it exited") from None
            if time.monotonic() > deadline:
                raise NotReady(f"not ready after {seconds:.0f} s ({answer})") from None
        time.sleep(0.05)


def http_answers(url: str) -> None:
    """GET answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 - our own process
            if response.status != 200:
                raise NotReady(f"{url} answered {response.status}")
    except urllib.error.HTTPError as error:
        raise NotReady(f"{url} answered {error.code}") from None
    except OSError as error:
        raise NotReady(f"{url}: {error}") from None


def postgres_answers(url: str) -> None:
    """SELECT 1 answers."""
    import psycopg  # noqa: PLC0415 - importing the stack stays cheap

    try:
        with psycopg.connect(url, connect_timeout=int(TIMEOUT)) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        raise NotReady(str(error).strip()) from None


def redis_answers(url: str) -> None:
    """PING answers, which it does not while the append-only file is being read."""
    import redis  # noqa: PLC0415 - importing the stack stays cheap

    try:
        with redis.Redis.from_url(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        ) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        raise NotReady(str(error)) from None


def amqp_answers(url: str) -> None:
    """A broker lets the user of the address in."""
    import logging  # noqa: PLC0415 - importing the stack stays cheap

    import pika  # noqa: PLC0415

    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs each failed attempt, at length
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = TIMEOUT
    try:
        pika.BlockingConnection(parameters).close()
    except (pika.exceptions.AMQPError, OSError) as error:
        raise NotReady(str(error) or repr(error)) from None


def kafka_answers(bootstrap_servers: str) -> None:
    """One broker of the list answers a metadata request and names at least one broker.

    Speaks the wire protocol itself: the project's Kafka client lives behind `outbox.kafka`, which
    needs Django.
    """
    answers = []
    for address in bootstrap_servers.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            if _brokers_named_by(host or "localhost", int(port)) > 0:
                return
            answers.append(f"{address} knows no broker yet")
        except (OSError, ValueError, struct.error) as error:
            answers.append(f"{address}: {error}")
    raise NotReady("; ".join(answers))


def _brokers_named_by(host: str, port: int) -> int:
    client_id = b"localstack"
    no_topics = struct.pack(">i", 0)
    request = struct.pack(">hhih", METADATA, 1, 1, len(client_id)) + client_id + no_topics
    with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < 12:  # length, correlation id, number of brokers
            part = connection.recv(4096)
            if not part:
                raise OSError("connection closed without an answer")
            answer += part
    return int(struct.unpack(">iii", answer[:12])[2])
