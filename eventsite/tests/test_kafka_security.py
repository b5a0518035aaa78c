"""Kafka that demands TLS and a login: every client of ours gets in, and check_servers says why one does not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from devtools.localstack.apache_kafka import embedded_apache_kafka, find_java
from devtools.localstack.state import ephemeral_state
from devtools.localstack.warden import remove
from devtools.testing.certificates import Authority
from devtools.testing.installed import needs_apache_kafka, needs_openssl
from devtools.testing.pipeline import settles
from devtools.testing.processes import free_port
from eventsite.settings.kafka import KafkaSecurity
from outbox.kafka import admin, groups, producer
from outbox.kafka.consumer import TopicConsumer
from outbox.kafka.log_reader import read_topic
from outbox.kafka.producer import OutgoingMessage
from outbox.kafka.stream import LimitsQuestion, Stream
from outbox.topics import PartitionKey, Topic
from outbox.upkeep.kafka_checks import check_kafka

pytestmark = [needs_apache_kafka, needs_openssl]

PASSWORD = "not/a=secret"
TOPIC = Topic("secured", partitions=1)


@dataclass(frozen=True, slots=True)
class Broker:
    """Listeners of one broker, and what a client needs for them."""

    sasl: int  # SASL_SSL
    mutual: int  # SSL, with a certificate of the client
    plain: int
    folder: Path
    authority: Path
    stranger: Path

    def login(self, **changes: Any) -> KafkaSecurity:
        """What the SASL_SSL listener wants."""
        given = KafkaSecurity(
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_mechanism="SCRAM-SHA-512",
            kafka_sasl_username="orders",
            kafka_sasl_password=PASSWORD,
            kafka_ssl_ca_location=self.authority,
        )
        return given.model_copy(update=changes)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    state = ephemeral_state()
    authority, stranger = (Authority(state.root, name) for name in ("authority", "stranger"))
    issued = authority.issue("broker")
    authority.issue("client")
    (state.root / "keystore.pem").write_text(issued.together)
    made = Broker(
        *(free_port(), free_port(), free_port()),
        folder=state.root,
        authority=authority.certificate,
        stranger=stranger.certificate,
    )
    controller = free_port()
    server = embedded_apache_kafka(
        state,
        find_java(os.environ),
        made.plain,
        controller,
        os.environ,
        extra=_listeners(made, controller),
        format_options=(
            "--add-scram",
            f"SCRAM-SHA-512=[name=orders,password={PASSWORD}]",
        ),
    )
    assert server.unit is not None
    server.unit.start()
    try:
        server.unit.wait_ready(180)
        with _speaking(made.sasl, made.login()):
            admin.ping(60)
            admin.create([TOPIC], replication_factor=1)
        yield made
    finally:
        server.unit.stop()
        remove(str(state.root))


def _listeners(broker: Broker, controller: int) -> dict[str, str]:
    open_ = f"PLAINTEXT://127.0.0.1:{broker.plain}"
    closed = f"SECURED://127.0.0.1:{broker.sasl},MUTUAL://127.0.0.1:{broker.mutual}"
    modules = "org.apache.kafka.common.security"
    return {
        "listeners": f"{open_},{closed},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"{open_},{closed}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL,MUTUAL:SSL"
        ),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secured.plain.sasl.jaas.config": (
            f'{modules}.plain.PlainLoginModule required user_orders="{PASSWORD}";'
        ),
        "listener.name.secured.scram-sha-512.sasl.jaas.config": (
            f"{modules}.scram.ScramLoginModule required;"
        ),
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(broker.folder / "keystore.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(broker.authority),
    }


def _speaking(port: int, security: KafkaSecurity, host: str = "127.0.0.1") -> override_settings:
    return override_settings(
        KAFKA_BOOTSTRAP_SERVERS=f"{host}:{port}",
        KAFKA_SECURITY=security.kafka_client_settings(),
        KAFKA_GROUP_PROTOCOL="consumer",
    )


@pytest.fixture(autouse=True)
def _no_producer_of_another_broker() -> Iterator[None]:
    producer.discard()
    yield
    producer.discard()


def _mutual(broker: Broker) -> KafkaSecurity:
    return broker.login(
        kafka_security_protocol="SSL",
        kafka_sasl_username="",
        kafka_sasl_password="",
        kafka_ssl_certificate_location=broker.folder / "authority-client.pem",
        kafka_ssl_key_location=broker.folder / "authority-client.key",
    )


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "PLAIN", "certificate"])
def test_every_client_gets_in(broker: Broker, way: str) -> None:
    security = _mutual(broker) if way == "certificate" else broker.login(kafka_sasl_mechanism=way)
    with _speaking(broker.mutual if way == "certificate" else broker.sasl, security):
        told = way.encode()
        sent = producer.send(
            [OutgoingMessage("secured", 0, b"drain", told, [("ce_id", "1")])], timeout=60
        )
        assert sent.complete, sent.error
        assert _relayed(told)
        values = [message.value for message in read_topic("secured", timeout=60)]
        assert values.count(told) == 2
        assert groups.broker_limits() is not None
        assert groups.sessions(["secured.orders"])
        assert _received(told) == 2


def _relayed(value: bytes) -> bool:
    stream: Stream[str] = Stream("secured", limit=LimitsQuestion("secured").ask(60))
    try:
        assert stream.send("token", key="relay", value=value, headers=[])
        return settles(lambda: stream.poll()[0] == ["token"], within=60)
    finally:
        stream.end()


def _received(value: bytes) -> int:
    """How many messages with this value a member of a group gets."""
    found: list[bytes | None] = []

    def start(keys: Any) -> dict[PartitionKey, int]:
        return dict.fromkeys(keys, 0)

    consumer = TopicConsumer(
        group="secured.orders",
        topic="secured",
        on_assign=start,
        on_revoke=lambda _keys: None,
        on_lost_offset=lambda _key, error: pytest.fail(error),
        on_end=lambda _key, _offset: None,
    )
    give_up = time.monotonic() + 60
    try:
        while found.count(value) < 2 and time.monotonic() < give_up:
            batch = consumer.receive(limit=100, limit_bytes=10_000, timeout=1)
            found += [message.value for message in batch]
    finally:
        consumer.close()
    return found.count(value)


@pytest.mark.parametrize(
    ("changes", "found", "means"),
    [
        (
            {"kafka_sasl_password": "wrong"},
            "SASL authentication error",
            "KAFKA_SASL_PASSWORD. Correct them",
        ),
        ({"kafka_sasl_username": "nobody"}, "SASL authentication error", "KAFKA_SASL_USERNAME or"),
        (
            {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
            "supported mechanisms",
            "accept KAFKA_SASL_MECHANISM",
        ),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT"},
            "",
            "does not speak KAFKA_SECURITY_PROTOCOL",
        ),
    ],
)
def test_what_is_wrong_is_named(
    broker: Broker, changes: dict[str, Any], found: str, means: str
) -> None:
    _is_told(broker, broker.sasl, broker.login(**changes), found, means)


def test_an_authority_that_did_not_sign_is_named(broker: Broker) -> None:
    stranger = broker.login(kafka_ssl_ca_location=broker.stranger)
    _is_told(broker, broker.sasl, stranger, "issuer certificate", "KAFKA_SSL_CA_LOCATION lacks")


def test_another_name_than_the_certificate_has_is_named(broker: Broker) -> None:
    wanted = "is for another host name"
    _is_told(broker, broker.sasl, broker.login(), "mismatch", wanted, host="localhost")


def test_a_missing_certificate_of_the_client_is_named(broker: Broker) -> None:
    bare = _mutual(broker).model_copy(
        update={"kafka_ssl_certificate_location": None, "kafka_ssl_key_location": None}
    )
    _is_told(broker, broker.mutual, bare, "", "The broker asks for a client certificate")


def test_a_file_that_is_no_certificate_is_named(broker: Broker) -> None:
    properties = broker.login(kafka_ssl_ca_location=broker.folder / "kafka.properties")
    _is_told(broker, broker.sasl, properties, "", "KAFKA_SSL_CA_LOCATION does not name a PEM file")


def test_a_broker_without_tls_is_named(broker: Broker) -> None:
    _is_told(broker, broker.plain, broker.login(), "", "does not speak KAFKA_SECURITY_PROTOCOL")


def test_a_broker_that_is_away_is_just_that(broker: Broker) -> None:
    _is_told(
        broker, free_port(), broker.login(), "no answer", "Start Kafka, or wait until it answers."
    )


def _is_told(
    broker: Broker,
    port: int,
    security: KafkaSecurity,
    found: str,
    means: str,
    host: str = "127.0.0.1",
) -> None:
    with _speaking(port, security, host), pytest.MonkeyPatch.context() as patch:
        patch.setattr(admin, "TIMEOUT", 1.5)
        [result] = check_kafka()
    assert result.server == "kafka"
    assert found in result.found, result
    assert means in result.means, result
    assert PASSWORD not in str(result)
