"""Which broker feeds the relay: RabbitMQ of this machine, else the stand-in, else none and no relay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from devtools.localstack import LocalStack, LocalStackError, rabbitmq
from devtools.localstack.apache_kafka import Java
from devtools.localstack.ports import Ports
from devtools.localstack.processes import Plan, ProcessSpec
from devtools.localstack.rabbitmq import embedded_amqp, find_rabbitmq
from devtools.localstack.server import Server
from devtools.localstack.state import StackState, ephemeral_state
from devtools.localstack.tests.plans import DUMMY, WORKING

RELAY = ProcessSpec("relay", ("{python}", DUMMY), needs_rabbitmq=True)


@pytest.fixture
def state() -> Iterator[StackState]:
    state = ephemeral_state()
    yield state
    shutil.rmtree(state.root)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment in whose PATH there is nothing."""
    monkeypatch.setattr(rabbitmq, "BESIDE_PATH", ())
    monkeypatch.setattr(rabbitmq, "PACKAGED", tmp_path / "none")
    return {"PATH": str(tmp_path)}


def choose(
    state: StackState, environment: dict[str, str], broker: str
) -> tuple[Server | None, str]:
    """The server, and what was said."""
    said: list[str] = []
    server = embedded_amqp(
        state,
        Ports(state.ports),
        environment,
        broker=broker,
        wanted_port=None,
        report=said.append,
    )
    assert len(said) <= 1
    return server, "".join(said)


def installed(folder: Path) -> None:
    program = folder / "rabbitmq-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)


def test_rabbitmq_on_path_is_a_node_of_its_own(
    state: StackState, nothing_installed: dict[str, str], tmp_path: Path
) -> None:
    installed(tmp_path)
    assert find_rabbitmq(nothing_installed) == str(tmp_path / "rabbitmq-server")
    server, said = choose(state, nothing_installed, "auto")
    assert server is not None
    assert server.unit is not None
    assert said == ""
    own = server.unit.program.environment
    port = server.unit.program.port
    assert own["RABBITMQ_NODENAME"] == f"eventsite-{port}@localhost"
    for name in ("HOME", "RABBITMQ_MNESIA_BASE", "RABBITMQ_CONFIG_FILE", "RABBITMQ_PID_FILE"):
        assert own[name].startswith(str(state.root))
    assert len({str(port), own["RABBITMQ_DIST_PORT"], own["ERL_EPMD_PORT"]}) == 3


@pytest.mark.parametrize("broker", ["auto", "qpid"])
def test_the_stand_in_is_said_in_one_line(
    state: StackState,
    nothing_installed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broker: str,
) -> None:
    if broker == "qpid":
        installed(tmp_path)  # and yet the stand-in is asked for
    monkeypatch.setattr(rabbitmq, "fetch_qpid", lambda *_: Java("java"))
    server, said = choose(state, nothing_installed, broker)
    assert server is not None
    assert "Qpid" in server.description
    assert "stand-in" in said
    assert "apt-get install rabbitmq-server" in said


@pytest.mark.parametrize("broker", ["auto", "rabbitmq", "qpid"])
def test_neither_is_one_line_that_says_how_to_add_one(
    state: StackState, nothing_installed: dict[str, str], broker: str
) -> None:
    server, said = choose(state, nothing_installed, broker)
    assert server is None
    for word in (
        "left out",
        "apt-get install rabbitmq-server",
        "Java 17 and Maven",
        "RABBITMQ_URL",
    ):
        assert word in said


def test_a_stack_without_a_broker_has_no_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_java(*_: object) -> Java:
        raise LocalStackError("there is no Java")

    monkeypatch.setattr(rabbitmq, "fetch_qpid", no_java)
    said: list[str] = []
    plan = Plan(processes=(*WORKING.processes, RELAY))
    with (
        patch.dict(os.environ, AMQP_BROKER="qpid"),
        LocalStack.ephemeral(
            own_servers=True, kafka="tansu", plan=plan, report=said.append
        ) as stack,
    ):
        assert {unit.name for unit in stack.units} == {"web", "worker"}
        assert "RABBITMQ_URL" not in stack.env
    assert len([line for line in said if "the relay is left out" in line]) == 1
