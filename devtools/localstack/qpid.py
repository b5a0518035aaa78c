"""Apache Qpid Broker-J: speaks AMQP 0-9-1 where there is Java and no RabbitMQ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from devtools.localstack.apache_kafka import Java, find_java
from devtools.localstack.maven import fetch, jars_of
from devtools.localstack.probes import amqp_answers
from devtools.localstack.server import Report, Server
from devtools.localstack.state import StackState
from devtools.localstack.unit import Program, Unit

__all__ = ["embedded_qpid", "fetch_qpid"]

VERSION = "9.2.1"
JARS = f"qpid-{VERSION}"
# Its store on Berkeley DB is not on Maven Central; Derby's is.
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>amqp</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.qpid</groupId><artifactId>qpid-broker</artifactId>
      <version>{VERSION}</version>
      <exclusions>
        <exclusion><groupId>org.apache.qpid</groupId><artifactId>qpid-bdbstore</artifactId></exclusion>
        <exclusion><groupId>com.sleepycat</groupId><artifactId>je</artifactId></exclusion>
      </exclusions>
    </dependency>
  </dependencies>
</project>
"""
# Other protocols, the web console, and what needs the store that is left out.
_NOT_WANTED = re.compile(
    r"amqp-1-0|-to-1-0|bdb-link-store|management-http|websocket|jetty|dojo|dgrid|dstore"
)
CONFIG = """\
{"name": "embedded", "modelVersion": "9.1",
 "authenticationproviders": [{"name": "plain", "type": "Plain", "secureOnlyMechanisms": "[]",
   "users": [{"name": "guest", "type": "managed", "password": "guest"}]}],
 "ports": [{"name": "AMQP", "port": "${qpid.amqp_port}", "bindingAddress": "127.0.0.1",
   "protocols": ["AMQP_0_9_1", "AMQP_0_9", "AMQP_0_8"], "authenticationProvider": "plain",
   "virtualhostaliases": [{"name": "nameAlias", "type": "nameAlias"},
     {"name": "defaultAlias", "type": "defaultAlias"},
     {"name": "hostnameAlias", "type": "hostnameAlias"}]}],
 "virtualhostnodes": [{"name": "default", "type": "JSON", "defaultVirtualHostNode": "true",
   "virtualHostInitialConfiguration": "{\\"type\\":\\"DERBY\\"}"}],
 "brokerloggers": []}
"""
HEAP = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Duser.timezone=UTC")


def fetch_qpid(environment: Mapping[str, str], report: Report) -> Java:
    """The Java for it, with its jars in the cache. Raises LocalStackError when it cannot run here."""
    java = find_java(environment)
    fetch(
        JARS,
        POM,
        title=f"Apache Qpid Broker-J {VERSION}",
        environment=environment,
        report=report,
        wanted=lambda name: not _NOT_WANTED.search(name),
    )
    return java


def embedded_qpid(
    state: StackState, java: Java, port: int, environment: Mapping[str, str]
) -> Server:
    """Describe the broker, with its messages below the state."""
    data = state.root / "qpid"
    is_new = not data.exists()
    data.mkdir(exist_ok=True)
    config = data / "initial.json"
    config.write_text(CONFIG)
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    program = Program(
        name="rabbitmq",
        command=(
            *(java.binary, *HEAP, "-cp", f"{jars_of(JARS)}/*", "org.apache.qpid.server.Main"),
            *("-prop", f"qpid.work_dir={data}", "-icp", str(config)),
            *("-prop", f"qpid.amqp_port={port}"),
        ),
        environment=environment,
        directory=data,
        log=state.log("rabbitmq"),
        port=port,
        # Its port is open some seconds before its virtual host is.
        probe=partial(amqp_answers, url),
        advice="Set RABBITMQ_PORT= if its port is taken, or RABBITMQ_URL to use another server.",
    )
    return Server(
        name="rabbitmq",
        description=f"embedded Apache Qpid Broker-J {VERSION}, a stand-in for RabbitMQ",
        environment={"RABBITMQ_URL": url},
        unit=Unit(program),
        is_new=is_new,
    )
