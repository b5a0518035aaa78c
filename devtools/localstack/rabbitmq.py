"""Embedded RabbitMQ: `rabbitmq-server` of this machine as a node of its own, else a stand-in.

The node has its own name, data, ports, cookie and epmd; the service that a package may have set up
is never touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from devtools.localstack.errors import LocalStackError
from devtools.localstack.ports import Ports
from devtools.localstack.probes import amqp_answers
from devtools.localstack.qpid import embedded_qpid, fetch_qpid
from devtools.localstack.server import Report, Server
from devtools.localstack.state import StackState
from devtools.localstack.unit import Program, Unit

__all__ = ["embedded_amqp", "embedded_rabbitmq", "find_rabbitmq"]

# Packages put a wrapper on PATH that runs nothing but the service; the program itself is here.
PACKAGED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
BESIDE_PATH = ("/usr/sbin", "/usr/local/sbin")  # where packages put it, for root alone to find
WITHOUT = """\
There is no RabbitMQ, so the relay is left out ({reason}). To add it: apt-get install rabbitmq-server, \
or Java 17 and Maven for a stand-in, or set RABBITMQ_URL."""
STAND_IN = (
    "RabbitMQ is Apache Qpid Broker-J, a stand-in (docs/relay.md says what differs);"
    " apt-get install rabbitmq-server for the real one."
)
CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""
METRICS = """\
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {port}
"""


def find_rabbitmq(environment: Mapping[str, str]) -> str | None:
    """The program that runs a node in the foreground, if this machine has one."""
    folders = (environment.get("PATH", ""), *BESIDE_PATH)
    on_path = shutil.which("rabbitmq-server", path=os.pathsep.join(folders))
    if on_path is None:
        return None
    return str(PACKAGED) if PACKAGED.exists() else on_path


def embedded_amqp(
    state: StackState,
    ports: Ports,
    environment: Mapping[str, str],
    *,
    broker: str,
    wanted_port: int | None,
    report: Report,
) -> Server | None:
    """Describe the broker that this machine can run; None, after a line that says how to add one, if
    there is none. `broker` is `rabbitmq`, `qpid`, or `auto`."""
    binary = find_rabbitmq(environment) if broker != "qpid" else None
    if binary is not None:
        port = ports.choose("rabbitmq", wanted_port, "RABBITMQ_PORT")
        return embedded_rabbitmq(state, binary, port, ports, environment)
    try:
        if broker == "rabbitmq":
            raise LocalStackError("AMQP_BROKER=rabbitmq, but RabbitMQ is not installed")
        java = fetch_qpid(environment, report)
    except LocalStackError as error:
        report(WITHOUT.format(reason=error))
        return None
    report(STAND_IN)
    port = ports.choose("rabbitmq", wanted_port, "RABBITMQ_PORT")
    return embedded_qpid(state, java, port, environment)


def embedded_rabbitmq(
    state: StackState, binary: str, port: int, ports: Ports, environment: Mapping[str, str]
) -> Server:
    """Describe a node with its data below the state."""
    home = state.root / "rabbitmq"
    is_new = not home.exists()
    for folder in (home, home / "none"):
        folder.mkdir(exist_ok=True)
    cookie = home / ".erlang.cookie"
    if not cookie.exists():
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
    (home / "rabbitmq.conf").write_text(CONFIG.format(port=port))
    variables = {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{port}/"}
    plugins = "[]."
    if environment.get("RABBITMQ_METRICS") == "on":
        shown_at = ports.choose("rabbitmq-metrics")
        variables["RABBITMQ_METRICS_PORT"] = str(shown_at)
        plugins = "[rabbitmq_prometheus]."
        with (home / "rabbitmq.conf").open("a") as config:
            config.write(METRICS.format(port=shown_at))
    (home / "plugins").write_text(plugins)
    (home / "env.conf").touch()
    program = Program(
        name="rabbitmq",
        command=(binary,),
        environment={**environment, **_settings(home, port, ports)},
        directory=home,
        log=state.log("rabbitmq"),
        port=port,
        probe=partial(amqp_answers, variables["RABBITMQ_URL"]),
        advice="Set RABBITMQ_PORT= if its port is taken, or RABBITMQ_URL to use another server.",
    )
    return Server(
        name="rabbitmq",
        description="embedded RabbitMQ of this machine",
        environment=variables,
        unit=Unit(program),
        is_new=is_new,
    )


def _settings(home: Path, port: int, ports: Ports) -> dict[str, str]:
    """What makes the node ours alone (https://www.rabbitmq.com/docs/configure)."""
    return {
        "HOME": str(home),  # of the cookie
        "TZ": "UTC",
        # Under a service manager the program becomes the node itself, and SIGTERM stops it.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_NODENAME": f"eventsite-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(ports.choose("rabbitmq-dist")),
        "ERL_EPMD_PORT": str(ports.choose("rabbitmq-epmd")),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(home / "none"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "none" / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        # No busy waiting of schedulers: it costs more than it saves beside everything else.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}"
        ),
    }
