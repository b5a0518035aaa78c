"""`up`, `down`, `status`, `restart`: the stack that stays in the background."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devtools.localstack.ports import Ports, is_free
from devtools.localstack.record import Identity, Record
from devtools.localstack.state import StackState
from devtools.localstack.tests.commands import BackgroundStack, eventually, left_over


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[BackgroundStack]:
    state = StackState(tmp_path / "state")
    state.create()
    # the test database server runs as another user, who must reach its data
    stack = BackgroundStack(state, Ports(tmp_path / "ports.json").choose("web"))
    yield stack
    stack.run("down")
    assert left_over(state.root) == []


def test_life_of_a_stack(stack: BackgroundStack) -> None:
    first = stack.run("up")
    assert first.returncode == 0, first.stderr
    assert f"http://127.0.0.1:{stack.port}/" in first.stdout
    assert "IN MEMORY ONLY" in first.stdout
    assert stack.run("status").returncode == 0
    supervisor = stack.record().supervisor
    assert stack.record().environment["PORT"] == str(stack.port)  # `make manage` works on it

    second = stack.run("up")
    assert (second.returncode, stack.record().supervisor) == (0, supervisor)
    assert "Already running." in second.stdout
    for banner in (first.stdout, second.stdout):
        assert re.search(r"^site +http://127.0.0.1:\d+/ *$", banner, re.MULTILINE)
        assert re.findall(r"http://\S+", banner)[0] == f"http://127.0.0.1:{stack.port}/"
        assert re.search(r"^login +admin / admin *$", banner, re.MULTILINE)
        assert re.search(r"^stop +make down", banner, re.MULTILINE)

    before = stack.pid("worker")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: stack.pid("worker") not in (None, before))
    after = stack.pid("worker")
    said = stack.run("logs", "supervisor").stdout
    clock = r"^[\d:.]{12} supervisor +"
    assert re.search(
        rf"{clock}warn +ended program=worker pid={before} exit_code=SIGKILL$", said, re.MULTILINE
    )
    assert re.search(rf"{clock}started program=worker pid={after}$", said, re.MULTILINE)
    before = stack.pid("postgres")
    restarted = stack.run("restart", "postgres")
    assert restarted.returncode == 0, restarted.stderr
    assert stack.pid("postgres") != before

    prepared = stack.state.log("prepare")
    assert prepared.read_text().count("sync_routes --recreated") == 1
    assert stack.run("restart", "kafka").returncode == 0
    assert eventually(lambda: prepared.read_text().count("sync_routes --recreated") == 2)

    postgres_port = next(unit.port for unit in stack.record().units if unit.name == "postgres")
    down = stack.run("down")
    assert (down.returncode, down.stdout) == (0, "Stopped.\n")
    assert left_over(stack.state.root) == []
    assert stack.run("status").returncode == 1
    assert stack.run("down").stdout == "Nothing was running.\n"
    ended = stack.run("logs", "supervisor").stdout
    assert re.search(
        rf"{clock}ended program=worker pid={after} exit_code=\w+$", ended, re.MULTILINE
    )
    assert "stopped" in ended.splitlines()[-1]
    assert Ports(stack.state.ports).choose("postgres") == postgres_port


def test_a_running_stack_with_other_addresses_is_not_taken_for_the_one_asked_for(
    stack: BackgroundStack,
) -> None:
    assert stack.run("up").returncode == 0
    supervisor = stack.record().supervisor
    for name, value in (
        ("PORT", str(stack.port + 1)),
        ("POSTGRES_PORT", str(stack.port + 1)),
        ("DATABASE_URL", "postgresql://somebody:s3cret@db.example/orders"),
        ("REDIS_ADDR", "redis.example:6379"),
        ("KAFKA_BROKERS", "kafka.example:9092"),
    ):
        refused = stack.run("up", **{name: value})
        assert refused.returncode == 1, name
        assert f"A stack is running at http://127.0.0.1:{stack.port}/ already" in refused.stderr
        assert "Stop it first with `make down`" in refused.stderr
        assert "s3cret" not in refused.stderr
    assert stack.record().supervisor == supervisor
    same = stack.record().environment
    assert stack.run("up", PORT=same["PORT"], DATABASE_URL=same["DATABASE_URL"]).returncode == 0


def test_taken_port_is_refused_with_its_remedy(stack: BackgroundStack) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        refused = stack.run("up")
    assert refused.returncode == 1
    assert f"Port {stack.port} is taken. Set PORT= to a free port." in refused.stdout
    assert left_over(stack.state.root) == []
    assert Record.read(stack.state.record) is None


@pytest.mark.parametrize(
    ("plan", "said"), [("FAILING_STEP", "no such table"), ("FAILING_PROCESS", "no such queue")]
)
def test_failed_start_leaves_nothing(stack: BackgroundStack, plan: str, said: str) -> None:
    stack.plan = plan
    failed = stack.run("up")
    assert failed.returncode == 1
    assert f"  | {said}" in failed.stdout
    assert left_over(stack.state.root) == []
    assert is_free(stack.port)


def test_killed_supervisor_takes_everything_along(stack: BackgroundStack) -> None:
    assert stack.run("up").returncode == 0
    units = [unit.identity for unit in stack.record().units]
    os.kill(stack.record().supervisor.pid, signal.SIGKILL)
    assert eventually(lambda: left_over(stack.state.root) == [])
    assert not any(identity.is_alive() for identity in units if identity)
    again = stack.run("up")
    assert again.returncode == 0, again.stdout + again.stderr


def test_recycled_pid_is_left_alone(stack: BackgroundStack) -> None:
    """A record of a crashed stack names pids that belong to others by now."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        created = psutil.Process(bystander.pid).create_time()
        Record(supervisor=Identity(bystander.pid, created - 60)).write(stack.state.record)
        assert stack.run("down").stdout == "Nothing was running.\n"
        assert bystander.poll() is None
        assert not stack.state.record.exists()
    finally:
        bystander.kill()
        bystander.wait()
