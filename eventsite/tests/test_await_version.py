"""`manage.py await_version`: workers before bridges before web, of their own version, and never for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO

import pytest
import redis
from django.conf import settings
from django.core.management import CommandError, call_command

from devtools.testing import zygote
from devtools.testing.heartbeats import forget_heartbeats
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import (
    child_environment,
    free_port,
    running,
    spec_of,
)
from eventsite.roles import ROLES
from eventsite.rollout import ALIVE_SECONDS, KINDS
from outbox import conf
from outbox.process import heartbeat
from outbox.process.heartbeat import Heartbeat

OF_ROUTES = sorted({route.queue for route in conf.routes()})


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    """A Redis to which nobody has said anything."""
    forget_heartbeats()
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


def says(kind: str, queues: Sequence[str] = ()) -> Heartbeat:
    """One heartbeat of a process of this version."""
    made = Heartbeat(kind, queues=lambda: queues)
    made.beat()
    return made


def at_once(role: str, seconds: float = 0) -> str:
    """What it says when it has no time to wait."""
    out = StringIO()
    call_command("await_version", role, seconds=seconds, stdout=out)
    return out.getvalue()


@contextmanager
def waiting(role: str) -> Iterator[tuple[threading.Thread, StringIO]]:
    """The command on a thread, with more time than the test has."""
    out = StringIO()
    thread = threading.Thread(
        target=call_command,
        args=("await_version", role),
        kwargs={"seconds": 2 * PATIENCE, "stdout": out},
        daemon=True,
    )
    thread.start()
    yield thread, out
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.usefixtures("server")
def test_a_bridge_waits_until_every_queue_it_sends_to_has_a_worker() -> None:
    first, *others = OF_ROUTES
    with waiting("bridge") as (thread, out):
        assert settles(lambda: "waits for" in out.getvalue())
        says("worker", others)
        assert settles(lambda: f"waits for a worker on queue {first}." in out.getvalue())
        assert thread.is_alive()
        says("worker", [first])
    assert out.getvalue().endswith("may start.\n")


@pytest.mark.usefixtures("server")
def test_web_waits_for_a_bridge() -> None:
    says("worker", OF_ROUTES)
    with waiting("web") as (_, out):
        assert settles(lambda: "waits for a bridge." in out.getvalue())
        says("bridge")
    assert out.getvalue().endswith("may start.\n")


@pytest.mark.usefixtures("server")
def test_beat_waits_for_the_workers_of_its_tasks() -> None:
    says("worker", OF_ROUTES)
    assert "without a worker on queue" in at_once("beat")
    says("worker", [queue.name for queue in settings.CELERY_TASK_QUEUES])
    assert at_once("beat").endswith("may start.\n")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["release", "build"])
def test_another_version_is_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says("bridge")
    assert "may start" in at_once("web")
    monkeypatch.setattr(f"outbox.conf.{name}", lambda: "a later one")
    said = at_once("web")
    assert "goes on after 0 s without a bridge" in said
    assert "a later one" in said
    says("bridge")
    assert "may start" in at_once("web")


def test_one_that_has_gone_silent_or_has_ended_does_not_count(server: redis.Redis) -> None:
    dead = says("bridge")
    key = f"{heartbeat._PREFIX}{dead._id}"
    server.pexpire(key, int((heartbeat.GONE_SECONDS - ALIVE_SECONDS - 1) * 1000))
    assert "without a bridge" in at_once("web")
    dead.beat()
    assert "may start" in at_once("web")
    dead.end()
    assert "without a bridge" in at_once("web")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("kind", ["web", "bridge", "beat"])
def test_one_more_of_a_kind_that_lives_waits_for_nobody(kind: str) -> None:
    assert "goes on after 0 s" in at_once(kind)
    says(kind)
    assert "may start" in at_once(kind)


def test_workers_and_relay_ask_nobody(settings: object) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"  # type: ignore[attr-defined]
    for role in ("relay", *ROLES):
        assert at_once(role).endswith("may start.\n")


def test_a_redis_that_is_away_holds_nobody_up_for_longer(settings: object) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"  # type: ignore[attr-defined]
    said = at_once("web", seconds=0.1)
    assert "web of release" in said
    assert "goes on after 0.1 s without an answer of Redis (ConnectionError)" in said


def test_a_role_that_is_not_there_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("await_version", "bridges")
    assert set(KINDS) == {"web", "bridge", "beat", "relay", *ROLES}


@pytest.mark.usefixtures("server")
@pytest.mark.django_db(transaction=True)
def test_a_real_bridge_lets_a_real_web_begin() -> None:
    """Another build's bridge does not."""

    def web(build: str, seconds: float) -> str:
        told = zygote.run(
            *("manage.py", "await_version", "web", "--seconds", str(seconds)),
            environment=child_environment(BUILD=build),
            timeout=2 * PATIENCE,
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    spec = spec_of("bridge", BUILD="sha-2")
    with running(spec.command, spec.environment, spec.ready_url):
        assert web("sha-2", PATIENCE).endswith("build sha-2 may start.\n")
        assert "without a bridge." in web("sha-1", 0)
