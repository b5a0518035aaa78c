"""Which embedded Kafka broker: Apache Kafka where Java and Maven are, else Tansu."""

from __future__ import annotations

from collections.abc import Mapping

from devtools.localstack.apache_kafka import Java, embedded_apache_kafka, fetch_jars, find_java
from devtools.localstack.errors import LocalStackError
from devtools.localstack.ports import Ports
from devtools.localstack.server import Report, Server
from devtools.localstack.state import StackState
from devtools.localstack.tansu import embedded_tansu

__all__ = ["embedded_kafka"]

LOUD = """\
!! KAFKA IS TANSU: a Kafka-compatible broker that keeps its log IN MEMORY ONLY.
!! It forgets every published event when it stops; the stack then publishes again from the database.
!! Reason: {reason}."""


def embedded_kafka(
    state: StackState,
    ports: Ports,
    environment: Mapping[str, str],
    *,
    broker: str,
    wanted_port: int | None,
    report: Report,
) -> Server:
    """Describe the broker. `broker` is `apache`, `tansu` or `auto`.

    Raises LocalStackError when Apache Kafka is demanded and cannot be had.
    """
    if broker == "tansu":
        java, reason = None, "it was asked for"
    else:
        java, reason = _apache(environment, report)
        if java is None and broker == "apache":
            raise LocalStackError(
                f"Apache Kafka was asked for, but {reason}. Install Java 17 and Maven, or set"
                " KAFKA_BROKER=tansu, or KAFKA_BOOTSTRAP_SERVERS to use another broker."
            )
    port = ports.choose("kafka", wanted_port, "KAFKA_PORT")
    if java is None:
        report(LOUD.format(reason=reason))
        return embedded_tansu(state, port, environment)
    return embedded_apache_kafka(state, java, port, ports.choose("kafka-controller"), environment)


def _apache(environment: Mapping[str, str], report: Report) -> tuple[Java | None, str]:
    """Java with the jars of the broker, or the reason why there is none."""
    try:
        java = find_java(environment)
        fetch_jars(environment, report)
    except LocalStackError as error:
        return None, str(error)
    return java, ""
