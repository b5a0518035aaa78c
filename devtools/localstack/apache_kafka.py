"""Apache Kafka as one KRaft node: its jars by Maven, run by the Java of this machine."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devtools.localstack.errors import LocalStackError, StartFailed
from devtools.localstack.maven import fetch, jars_of
from devtools.localstack.probes import kafka_answers
from devtools.localstack.server import Report, Server
from devtools.localstack.spawn import run
from devtools.localstack.state import StackState
from devtools.localstack.unit import Program, Unit

__all__ = ["Java", "embedded_apache_kafka", "fetch_jars", "find_java"]

VERSION = "4.1.0"
OLDEST_JAVA = 17
NOTHING: Mapping[str, str] = {}
JARS = f"kafka-{VERSION}"
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
LOGGING = (
    "-Duser.timezone=UTC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)
# One node, few topics: G1 with its threads costs more idle CPU than it saves here, and the
# optimising compiler took a third of the broker's time in the first minutes of a run.
HEAP = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # a killed bridge is replaced within seconds, and a new group starts at once
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A killed broker may come back once the controller has given up its predecessor.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "1000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1500",
    "group.consumer.heartbeat.interval.ms": "1500",
    # two index files are allocated in full for every partition
    "log.index.size.max.bytes": "1048576",
    "log.segment.bytes": "268435456",
    "log.cleaner.dedupe.buffer.size": "16777216",
    # Permissions can be given; while a topic has none, everybody may do everything.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that runs this Kafka."""

    binary: str


def find_java(environment: Mapping[str, str]) -> Java:
    """Raises LocalStackError when there is none or it is too old."""
    binary = shutil.which("java", path=environment.get("PATH"))
    if binary is None:
        raise LocalStackError("there is no Java")
    answer = subprocess.run(  # noqa: S603 - found on PATH
        [binary, "-version"], capture_output=True, text=True, check=False
    )
    version = re.search(r'version "(\d+)', answer.stderr)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise LocalStackError(f"Java is older than {OLDEST_JAVA}")
    return Java(binary)


def fetch_jars(environment: Mapping[str, str], report: Report) -> None:
    """Let Maven copy the jars into the clone's cache, once. Raises LocalStackError when it cannot."""
    fetch(JARS, POM, title=f"Apache Kafka {VERSION}", environment=environment, report=report)


def embedded_apache_kafka(
    state: StackState,
    java: Java,
    port: int,
    controller_port: int,
    environment: Mapping[str, str],
    *,
    extra: Mapping[str, str] = NOTHING,
    format_options: Sequence[str] = (),
) -> Server:
    """Format the log if it is new and describe the broker. Raises StartFailed.

    `extra`: properties that win over ours; `format_options`: of the storage tool, for a new log."""
    data = state.root / "kafka"
    address = f"127.0.0.1:{port}"
    properties = state.root / "kafka.properties"
    properties.write_text(
        "".join(
            f"{name}={value}\n"
            for name, value in {
                **PROPERTIES,
                "listeners": f"PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller_port}",
                "advertised.listeners": f"PLAINTEXT://{address}",
                "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
                "log.dirs": str(data),
                **extra,
            }.items()
        )
    )
    is_new = not (data / "meta.properties").exists()
    if is_new:
        _format(state, java, properties, environment, format_options)
    program = Program(
        name="kafka",
        command=(java.binary, *HEAP, *LOGGING, "-cp", _classpath(), "kafka.Kafka", str(properties)),
        environment=environment,
        directory=state.root,
        log=state.log("kafka"),
        port=port,
        probe=partial(kafka_answers, address),
        advice=(
            "Set KAFKA_PORT= if its port is taken, KAFKA_BROKER=tansu to do without Java,"
            " or KAFKA_BOOTSTRAP_SERVERS to use another broker."
        ),
    )
    return Server(
        name="kafka",
        description=f"embedded Apache Kafka {VERSION}",
        environment={"KAFKA_BOOTSTRAP_SERVERS": address, "KAFKA_GROUP_PROTOCOL": "consumer"},
        unit=Unit(program),
        is_new=is_new,
    )


def _classpath() -> str:
    return f"{jars_of(JARS)}/*"


def _format(
    state: StackState,
    java: Java,
    properties: Path,
    environment: Mapping[str, str],
    options: Sequence[str],
) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [
        *(java.binary, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *LOGGING),
        *("-cp", _classpath(), "kafka.tools.StorageTool", "format"),
        *("--ignore-formatted", f"--cluster-id={cluster_id}", "-c", str(properties), *options),
    ]
    log = state.log("kafka")
    code, _ = run(command, environment=environment, directory=state.root, log=log, seconds=60)
    if code != 0:
        raise StartFailed("kafka", "formatting its log failed", log, "Set KAFKA_BROKER=tansu.")
