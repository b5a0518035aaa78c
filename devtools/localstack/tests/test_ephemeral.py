"""`exec` and `LocalStack.ephemeral`: stacks that leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from devtools.localstack import LocalStack, LocalStackError
from devtools.localstack.environment import MARKER
from devtools.localstack.errors import NotReady
from devtools.localstack.probes import kafka_answers
from devtools.localstack.state import CLONE
from devtools.localstack.tests.commands import command_line, environment, eventually, left_over
from devtools.localstack.tests.plans import WORKING
from devtools.testing.patience import PATIENCE

# the last mark is that of the innermost stack
SAY_STATE = f'echo "${MARKER}"'


# Nobody, but able to read: the interpreter may lie below a closed home directory of root.
AS_NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def tansu_stack(**options: Any) -> LocalStack:
    return LocalStack.ephemeral(own_servers=True, kafka="tansu", plan=WORKING, **options)


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalStack]:
    """A stack of servers for the tests that only look at it."""
    with tansu_stack(servers_only=True) as stack:
        yield stack


def test_two_stacks_side_by_side(servers: LocalStack) -> None:
    two = servers
    with tansu_stack(servers_only=True) as one:
        for variable in ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"):
            assert one.env[variable] != two.env[variable]
        redis.Redis.from_url(one.env["REDIS_URL"]).set("owner", "one")
        assert redis.Redis.from_url(two.env["REDIS_URL"]).get("owner") is None
        one.stop()
        assert two.server("kafka").is_alive()
        assert left_over(two.state.root)
    assert left_over(one.state.root) == []
    assert not one.state.root.exists()


def test_handles_of_processes_and_servers() -> None:
    with tansu_stack(extra_env={"COLOUR": "blue"}) as stack:
        assert stack.env["COLOUR"] == "blue"
        worker = stack.process("worker")
        first = worker.pid
        worker.kill()
        assert not worker.is_alive()
        worker.start()
        worker.wait_ready(10)
        assert worker.pid != first

        # a thread that ends must not take what it started along
        thread = threading.Thread(target=worker.restart)
        thread.start()
        thread.join()
        worker.wait_ready(10)

        stack.server("kafka").pause()
        with pytest.raises(NotReady):
            kafka_answers(stack.env["KAFKA_BOOTSTRAP_SERVERS"])
        stack.server("kafka").resume()
        kafka_answers(stack.env["KAFKA_BOOTSTRAP_SERVERS"])

        with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        stack.server("postgres").kill()
        stack.server("postgres").start()
        stack.server("postgres").wait_ready()
        with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
            connection.execute("SELECT id FROM kept")
        with pytest.raises(LocalStackError, match="these run: web, worker"):
            stack.process("nobody")
    assert left_over(stack.state.root) == []


def test_what_dies_is_started_again_where_that_is_wanted() -> None:
    with tansu_stack(keep_up=True) as stack:
        worker = stack.process("worker")
        worker.kill()
        assert eventually(worker.is_alive)
        worker.wait_ready(10)
        stack.process("web").stop()
        assert stack.restarts == {"web": 0, "worker": 1}
        assert not stack.process("web").is_alive()
    assert left_over(stack.state.root) == []


def test_durability_is_not_traded_for_speed(servers: LocalStack) -> None:
    with psycopg.connect(servers.env["DATABASE_URL"]) as db:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert db.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_exec_returns_the_exit_code_and_cleans_up() -> None:
    done = subprocess.run(
        command_line(
            "exec", "--servers-only", "--own-servers", "--", "sh", "-c", f"{SAY_STATE}; exit 7"
        ),
        **_captured(),
        check=False,
        timeout=PATIENCE,
    )
    state = _state(done.stdout)
    assert done.returncode == 7, done.stderr
    assert left_over(state) == []
    assert not state.exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_killed_launcher_leaves_nothing(end: signal.Signals) -> None:
    script = f"{SAY_STATE}; exec sleep 600"
    launcher = subprocess.Popen(
        command_line(
            *("--plan", "devtools.localstack.tests.plans:WORKING"),
            *("exec", "--own-servers", "--", "sh", "-c", script),
        ),
        **_captured(),
    )
    assert launcher.stdout is not None
    state = _state(launcher.stdout.readline())
    started = psutil.Process(launcher.pid).children(recursive=True)
    try:
        assert {"postgres", "redis-server", "tansu"} <= {process.name() for process in started}
    finally:
        launcher.send_signal(end)
        launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == (143 if end == signal.SIGTERM else -signal.SIGKILL)
    assert eventually(lambda: not any(process.is_running() for process in started))
    assert eventually(lambda: not state.exists())
    assert left_over(state) == []


def test_tansu_keeps_headers_and_order(servers: LocalStack) -> None:
    address: dict[str, Any] = {"bootstrap.servers": servers.env["KAFKA_BOOTSTRAP_SERVERS"]}
    admin = AdminClient(address)
    for created in admin.create_topics([NewTopic("t", 3, 1)]).values():
        created.result(PATIENCE)
    producer = Producer({**address, "enable.idempotence": True})
    for number in range(30):
        header: Any = [("ce_id", str(number).encode())]
        producer.produce("t", key=b"k", value=b"v", partition=number % 3, headers=header)
    assert producer.flush(10) == 0
    consumer = Consumer({**address, "group.id": "g"})
    consumer.assign([TopicPartition("t", part, 0) for part in range(3)])
    got: dict[int, list[int]] = {0: [], 1: [], 2: []}
    while sum(map(len, got.values())) < 30:
        message: Any = consumer.poll(10)
        assert message is not None
        assert message.error() is None
        got[message.partition()].append(int(dict(message.headers())["ce_id"]))
    consumer.close()
    assert got == {part: list(range(part, 30, 3)) for part in range(3)}


def test_as_an_ordinary_user(tmp_path: Path) -> None:
    """Started by root it drops to one that cannot write the clone: the state then lies elsewhere."""
    tmp_path.chmod(0o777)
    is_root = os.geteuid() == 0
    done = subprocess.run(
        [
            *(AS_NOBODY if is_root else ()),
            *command_line("exec", "--servers-only", "--own-servers", "--"),
            *("sh", "-c", f"{SAY_STATE}; id -u"),
        ],
        **_captured(HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1"),
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    state, uid = done.stdout.splitlines()
    assert uid == ("65534" if is_root else str(os.geteuid()))
    assert not _state(state).exists()


def _captured(**changes: str) -> dict[str, Any]:
    return {
        "cwd": CLONE,
        "env": environment(**changes),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def _state(marks: str) -> Path:
    return Path(marks.splitlines()[0].split(os.pathsep)[-1].partition("#")[0])
