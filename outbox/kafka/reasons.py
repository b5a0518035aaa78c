"""Finds out why Kafka refuses a connection, and names the settings to change."""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import suppress
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from django.conf import settings

from outbox.kafka.config import client_config

__all__ = ["RefusalReason", "why_away", "words_of"]

SECONDS = 5.0


class RefusalReason(NamedTuple):
    """What was found, and what to do."""

    found: str
    means: str


_NO_LISTENER = (
    "The listener does not speak KAFKA_SECURITY_PROTOCOL. Change that setting, or the port."
)

# A pattern of librdkafka's error -> what to do. The first match counts.
_SAID = (
    (
        r"Unsupported SASL mechanism|mechanism handshake failed",
        "The broker does not accept KAFKA_SASL_MECHANISM. Use one that it offers.",
    ),
    (
        r"SASL authentication error|Authentication failed",
        "The broker refuses KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD. Correct them.",
    ),
    (
        r"connecting to a (PLAINTEXT|SSL)|wrong version number|incorrect security\.protocol",
        _NO_LISTENER,
    ),
    (
        r"ssl\.ca\.location",
        "KAFKA_SSL_CA_LOCATION does not name a PEM file of certificates. Correct it.",
    ),
    (
        r"ssl\.(key|certificate)\.location",
        "KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION do not name PEM files that belong"
        " together, or KAFKA_SSL_KEY_PASSWORD is wrong. Correct them.",
    ),
    (
        r"alert (certificate required|bad certificate|unknown ca|handshake failure)",
        "The broker asks for a client certificate that it trusts. Set KAFKA_SSL_CERTIFICATE_LOCATION and"
        " KAFKA_SSL_KEY_LOCATION.",
    ),
)


def words_of(error: Exception) -> str:
    """What an error says, for people. One of Kafka's client has its words inside."""
    inner = error.args[0] if error.args else None
    return str(inner.str()) if isinstance(inner, KafkaError) else str(error)


def why_away(error: object) -> RefusalReason:
    """Connect once more and read the client's errors. `error`: the one that the caller got."""
    for said in (_certificate(), *_heard()):
        if isinstance(said, RefusalReason):
            return said
        for pattern, means in _SAID:
            if re.search(pattern, said, re.IGNORECASE):
                return RefusalReason(said, means)
    return RefusalReason(f"no answer: {error}", "Start Kafka, or wait until it answers.")


def _heard() -> list[str]:
    """The errors of a client within five seconds, or until a known one comes."""
    heard: list[str] = []
    known = re.compile("|".join(pattern for pattern, _ in _SAID), re.IGNORECASE)
    try:
        client = AdminClient(
            client_config("check") | {"error_cb": lambda error: heard.append(str(error.str()))}
        )
    except KafkaException as error:
        return [words_of(error)]
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up and not any(known.search(each) for each in heard):
        client.poll(0.1)
    return heard


def _certificate() -> RefusalReason | str:
    """What is wrong with the broker's certificate, which librdkafka does not say; empty if nothing is wrong
    with it."""
    encrypts = settings.KAFKA_SECURITY.get("security.protocol", "").endswith("SSL")
    host, _, port = settings.KAFKA_BOOTSTRAP_SERVERS.partition(",")[0].rpartition(":")
    with suppress(OSError, ValueError):
        context = ssl.create_default_context(cafile=settings.KAFKA_SECURITY.get("ssl.ca.location"))
        if not encrypts:  # only to see whether the broker speaks TLS: nothing is sent
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection((host.strip("[]"), int(port)), SECONDS) as connection,
                context.wrap_socket(connection, server_hostname=host.strip("[]")),
            ):
                speaks = RefusalReason(f"{host}:{port} speaks TLS", _NO_LISTENER)
                return "" if encrypts else speaks
        except ssl.SSLCertVerificationError as error:
            return RefusalReason(
                f"the certificate of {host}:{port}: {error.verify_message}", _means(error)
            )
    return ""


def _means(error: ssl.SSLCertVerificationError) -> str:
    if "mismatch" in error.verify_message.lower() or "match" in error.verify_message.lower():
        return "The certificate of the broker is for another host name. Use that name in KAFKA_BOOTSTRAP_SERVERS."
    if "expired" in error.verify_message:
        return "The certificate of the broker has expired. Give the broker a new one."
    return "The file of KAFKA_SSL_CA_LOCATION lacks the authority that signed the certificate of the broker."
