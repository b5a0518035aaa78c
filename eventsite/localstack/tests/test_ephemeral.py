"""`exec` and `LocalStack.ephemeral`: stacks that leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from eventsite.localstack import LocalStack, LocalStackError
from eventsite.localstack.environment import MARKER
from eventsite.localstack.errors import NotReady
from eventsite.localstack.probes import kafka_answers
from eventsite.localstack.state import CLONE
from eventsite.localstack.tests.commands import command_line, environment, eventually, left_over
from eventsite.localstack.tests.plans import WORKING

# the last mark is that of the innermost stack
SAY_STATE = f'echo "${MARKER}"'


AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def _may_become_nobody() -> bool:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    # by way of a shell: the capabilities of root last until the first exec
    reach_python = ("sh", "-c", f"exec {sys.executable} --version")
    return subprocess.run([*AS_NOBODY, *reach_python], check=False).returncode == 0


def tansu_stack(**options: Any) -> LocalStack:
    return LocalStack.ephemeral(own_servers=True, kafka="tansu", plan=WORKING, **options)


def test_two_stacks_side_by_side() -> None:
    with tansu_stack(servers_only=True) as one, tansu_stack(servers_only=True) as two:
        for variable in ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"):
            assert one.env[variable] != two.env[variable]
        redis.Redis.from_url(one.env["REDIS_URL"]).set("owner", "one")
        assert redis.Redis.from_url(two.env["REDIS_URL"]).get("owner") is None
        one.stop()
        assert two.server("kafka").is_alive()
    for stack in (one, two):
        assert left_over(stack.state.root) == []
        assert not stack.state.root.exists()


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
        with pytest.raises(LocalStackError, match="what runs: web, worker"):
            stack.process("nobody")
    assert left_over(stack.state.root) == []


def test_durability_is_not_traded_for_speed() -> None:
    with tansu_stack(servers_only=True) as stack, psycopg.connect(stack.env["DATABASE_URL"]) as db:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert db.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_exec_returns_the_exit_code_and_cleans_up() -> None:
    done = subprocess.run(
        command_line(
            "exec", "--servers-only", "--own-servers", "--", "sh", "-c", f"{SAY_STATE}; exit 7"
        ),
        **_captured(),
        check=False,
        timeout=60,
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
            *("--plan", "eventsite.localstack.tests.plans:WORKING"),
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
        launcher.communicate(timeout=30)
    assert launcher.returncode == (143 if end == signal.SIGTERM else -signal.SIGKILL)
    assert eventually(lambda: not any(process.is_running() for process in started))
    assert eventually(lambda: not state.exists())
    assert left_over(state) == []


def test_tansu_keeps_headers_and_order() -> None:
    confluent_kafka: Any = pytest.importorskip("confluent_kafka")
    admin_client: Any = pytest.importorskip("confluent_kafka.admin")
    with tansu_stack(servers_only=True) as stack:
        servers = {"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"]}
        admin = admin_client.AdminClient(servers)
        for created in admin.create_topics([admin_client.NewTopic("t", 3, 1)]).values():
            created.result(10)
        producer = confluent_kafka.Producer({**servers, "enable.idempotence": True})
        for number in range(30):
            header = [("ce_id", str(number).encode())]
            producer.produce("t", key=b"k", value=b"v", partition=number % 3, headers=header)
        assert producer.flush(10) == 0
        consumer = confluent_kafka.Consumer({**servers, "group.id": "g"})
        consumer.assign([confluent_kafka.TopicPartition("t", part, 0) for part in range(3)])
        got: dict[int, list[int]] = {0: [], 1: [], 2: []}
        while sum(map(len, got.values())) < 30:
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            got[message.partition()].append(int(dict(message.headers())["ce_id"]))
        consumer.close()
    assert got == {part: list(range(part, 30, 3)) for part in range(3)}


@pytest.mark.skipif(not _may_become_nobody(), reason="needs root and a Python that nobody can run")
def test_as_an_ordinary_user(tmp_path: Path) -> None:
    """Runs from a clone that this user cannot write: the state then lies in the temp folder."""
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [
            *AS_NOBODY,
            *command_line("exec", "--servers-only", "--own-servers", "--"),
            *("sh", "-c", f"{SAY_STATE}; id -u"),
        ],
        **_captured(HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1"),
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    state, uid = done.stdout.splitlines()
    assert uid == "65534"
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
