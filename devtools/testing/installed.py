"""What some tests need of the machine beside Python: they are skipped where it is not there.

The summary of a run names them with what to install (`-rs`); `.ci/run` installs all of it and
refuses skips.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from django.conf import settings

from devtools.localstack.rabbitmq import find_rabbitmq

__all__ = [
    "BROWSERS",
    "NO_CHROMIUM",
    "debian_postgres",
    "needs_apache_kafka",
    "needs_chromium",
    "needs_debian_postgres",
    "needs_openssl",
    "needs_prometheus",
    "needs_promtool",
    "needs_rabbitmq",
    "needs_tls_redis",
    "on_the_stand_in",
    "tls_redis",
]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

NO_CHROMIUM = "Chromium is not installed: apt-get install chromium (any Chrome on PATH will do)"

needs_chromium = pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason=NO_CHROMIUM)
# Tansu, which stands in without Java, knows only the classic group protocol.
needs_apache_kafka = pytest.mark.skipif(
    settings.KAFKA_GROUP_PROTOCOL == "classic",
    reason="Apache Kafka is not installed, and Tansu cannot do this:"
    " apt-get install openjdk-17-jre-headless maven",
)
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed: apt-get install openssl"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: apt-get install prometheus, or put Prometheus' own on PATH",
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed: apt-get install prometheus, or put its program on PATH",
)
# AMQP_BROKER=qpid runs the tests of RabbitMQ on its stand-in.
on_the_stand_in = os.environ.get("AMQP_BROKER") == "qpid"
needs_rabbitmq = pytest.mark.skipif(
    find_rabbitmq(os.environ) is None and not on_the_stand_in,
    reason="RabbitMQ is not installed: apt-get install rabbitmq-server",
)


def debian_postgres() -> Path | None:
    """The newest PostgreSQL of Debian's packages: the wheel's speaks no TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parents[1] if found else None


def tls_redis() -> Path | None:
    """A Redis that speaks TLS. Debian's redis-tools bring the server's program under the name of a tool,
    without the service; the wheel's speaks no TLS."""
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    return Path(found) if found else None


needs_debian_postgres = pytest.mark.skipif(
    debian_postgres() is None,
    reason="There is no PostgreSQL that speaks TLS: apt-get install postgresql",
)
needs_tls_redis = pytest.mark.skipif(
    tls_redis() is None,
    reason="There is no Redis that speaks TLS: apt-get install redis-tools",
)
