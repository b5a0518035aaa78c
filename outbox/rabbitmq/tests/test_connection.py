"""The connection to RabbitMQ: kept while Kafka is unavailable, encrypted where that is asked for."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from devtools.relay import broker
from devtools.relay.account import RelayAccount, account
from devtools.relay.evidence import found
from devtools.relay.messages import numbered
from devtools.testing import own_servers
from devtools.testing.installed import needs_openssl, needs_rabbitmq
from devtools.testing.relay import a_policy, relaying, settled, until


@needs_rabbitmq
def test_heartbeats_go_out_while_kafka_is_away() -> None:
    """RabbitMQ ends a connection after three heartbeats' time without one, and all in hand is lost."""
    policy = replace(a_policy("heartbeats", workers=1), breaker_open=0.5)
    policy = replace(policy, url=f"{policy.url}?heartbeat=2")
    sent = [numbered("heartbeat", number) for number in range(300)]
    with relaying(policy) as relay:
        until(lambda: relay.consuming.is_consuming, "it consumes")
        kafka = own_servers.kafka_unit()
        kafka.pause()
        try:
            broker.publish(policy.url, policy.queue, sent)
            looks = relay.looks
            until(lambda: relay.looks > looks + 8, "eight seconds have gone")
            assert relay.consuming.is_up
            assert relay.consuming.channels == 1
        finally:
            kafka.resume()
        settled(policy, relay)
    assert account(sent, found(policy)) == RelayAccount(sent=300, in_kafka=300)


@needs_rabbitmq
@needs_openssl
def test_an_encrypted_connection_to_a_host_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """And to no other."""
    policy, trusted, other = (
        a_policy("amqps"),
        certificate(tmp_path / "1"),
        certificate(tmp_path / "2"),
    )
    broker.publish(policy.url, policy.queue, [numbered("amqps", 1)])
    port = urlsplit(policy.url).port
    assert port
    with encrypted(port, trusted) as address:
        policy = replace(policy, url=f"amqps://guest:guest@127.0.0.1:{address}/")
        with patch.dict(os.environ, SSL_CERT_FILE=str(other)), relaying(policy) as relay:
            until(lambda: relay.looks > 3, "it has tried")
            assert not relay.rabbitmq_is_well
        with patch.dict(os.environ, SSL_CERT_FILE=str(trusted)), relaying(policy) as relay:
            settled(policy, relay)
            assert relay.delivered == 1


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key in one file."""
    folder.mkdir()
    file = folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return file


@contextmanager
def encrypted(port: int, file: Path) -> Iterator[int]:
    """A port where that one is spoken to by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
        target.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(made, loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
