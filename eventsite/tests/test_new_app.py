"""A new app is a folder and a line in INSTALLED_APPS: the one of docs/developing.md, really run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.db import connection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from devtools.testing import zygote
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import (
    Spec,
    child_environment,
    command_of,
    free_port,
    running_together,
    spec_of,
)
from devtools.testing.web import Web, assert_error
from outbox.kafka import admin

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n# (notes/[\w/]+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS = '''"""Whatever other settings say, with one app more."""

from eventsite.composition import install
from devtools.testing.settings import *

install(globals(), "notes")
'''


@dataclass(frozen=True)
class NewApp:
    """The folder that holds the app and a settings module that installs it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder), "DJANGO_SETTINGS_MODULE": "with_notes"}

    def run(self, *command: str, fails: bool = False) -> str:
        """Output of a command that knows the app."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=child_environment(**self.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        return output(done, fails=fails)

    def manage(self, *arguments: str, fails: bool = False) -> str:
        """The same of manage.py."""
        done = zygote.run(
            "manage.py", *arguments, environment=child_environment(**self.environment)
        )
        return output(done, fails=fails)

    def spec(self, name: str, **environment: str) -> Spec:
        """One of our processes that knows the app."""
        return spec_of(name, **self.environment, **environment)


def output(done: subprocess.CompletedProcess[str], *, fails: bool) -> str:
    """Of a command that went as it should."""
    assert bool(done.returncode) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr * fails


@pytest.fixture
def notes(tmp_path: Path) -> NewApp:
    """The app as its author has it before the first command."""
    files = dict(BLOCK.findall((ROOT / "docs/developing.md").read_text()))
    assert {"notes/wiring.py", "notes/models.py", "notes/api.py"} <= files.keys()
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "notes" / "__init__.py").touch()
    (tmp_path / "with_notes.py").write_text(SETTINGS)
    return NewApp(tmp_path)


@pytest.fixture
def prepared(notes: NewApp, pipeline: None) -> Iterator[NewApp]:
    """The same with its migration written, and everything made that it needs."""
    try:
        notes.manage("makemigrations", "notes", "-v", "0")
        notes.manage("prepare")
        yield notes
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS notes, notes_by_author, notes_review")
            cursor.execute("DELETE FROM django_migrations WHERE app = 'notes'")
        client = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
        for future in client.delete_topics(["notes", "notes.dlq"], operation_timeout=10).values():
            future.exception(10)
        with redis.Redis.from_url(settings.REDIS_URL) as broker:
            broker.delete("notes")


def rows(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def web_of(app: NewApp, port: int, **environment: str) -> Spec:
    given = child_environment(**app.environment, **environment)
    return Spec(command_of("web", port), given, f"http://127.0.0.1:{port}/health")


def test_it_is_wired_by_being_installed(notes: NewApp) -> None:
    notes.manage("check")
    told = notes.manage("wiring")
    for line in (
        r"NOTE_WRITTEN +notes +count_notes +notes\.count_notes +notes +effects",
        r"1 s +notes\.review_notes +notes +effects",
        r"/notes +notes:read +notes:write +POST",
        r"/ws/notes +notes:read +notes\.consumers\.Drafts",
    ):
        assert re.search(line, told), told


def test_a_role_that_no_worker_has_stops_it(notes: NewApp) -> None:
    wiring = notes.folder / "notes/wiring.py"
    wiring.write_text(
        wiring.read_text().replace('TaskQueue("notes")', 'TaskQueue("notes", role="scribes")')
    )
    told = notes.manage("check", fails=True)
    assert "(eventsite.E011)" in told
    assert "'scribes'" in told


def test_an_event_of_it_takes_effect(prepared: NewApp) -> None:
    """HTTP, outbox, drain, Kafka, bridge, worker; its WebSocket; and beat's task by lease."""
    assert {"notes", "notes.dlq"} <= admin.topic_states(["notes", "notes.dlq"]).keys()
    positions = rows("SELECT count(*) FROM bridge_position WHERE handler = 'count_notes'")
    assert positions == [(12,)]
    names = ("worker-outbox", "worker-effects", "beat", "bridge")
    port = free_port()
    specs = [web_of(prepared, port), *(prepared.spec(name) for name in names)]
    with running_together(specs) as started:
        web = Web(port, started[0])
        first = web.post("/notes", {"text": "three words here"}, {"Idempotency-Key": "n-1"})
        assert first.status == 201, first.body
        again = web.post("/notes", {"text": "three words here"}, {"Idempotency-Key": "n-1"})
        assert (again.status, again.json) == (201, first.json)
        assert_error(web.post("/notes", {"text": ""}), 400)  # Django's, by the same declaration
        assert web.post("/notes", {"text": "one"}).status == 201
        stored = "SELECT count(*) FROM event_outbox WHERE type = 'NOTE_WRITTEN' AND topic = 'notes'"
        assert rows(stored) == [(2,)]
        assert settles(lambda: web.get("/notes").json == {"anonymous": 2})
        assert settles(
            lambda: rows("SELECT words FROM notes_review ORDER BY words") == [(1,), (3,)],
        )
        with connect(
            f"ws://127.0.0.1:{port}/ws/notes", proxy=None, open_timeout=PATIENCE
        ) as socket:
            socket.send("two words")
            assert json.loads(socket.recv(timeout=PATIENCE)) == {"author": "anonymous", "words": 2}
        metrics = web.get("/metrics").body.decode()
        was_hot = bool(re.search(r'hot_path_\w+{[^}]*path="POST notes"', metrics))
        assert was_hot == settings.HOT_PATHS, metrics
        described = web.get("/openapi.json").json
        assert {"get", "post"} <= described["paths"]["/notes"].keys()
        assert {"name": "notes"} in described["tags"]
        receipts = rows("SELECT DISTINCT handler FROM inbox_receipt")
        assert receipts == [("count_notes",)]


def test_its_path_asks_for_its_scope(prepared: NewApp) -> None:
    keys = {
        name: prepared.manage("api_keys", "create", name, "--scope", f"{name}:write").strip()
        for name in ("notes", "orders")
    }
    port = free_port()
    with running_together([web_of(prepared, port, API_KEYS_REQUIRED="true")]) as [process]:
        web = Web(port, process)

        def post(**headers: str) -> int:
            return web.post("/notes", {"text": "a note"}, headers).status

        assert post() == 401
        assert post(Authorization=f"Bearer {keys['orders']}") == 403
        assert post(Authorization=f"Bearer {keys['notes']}") == 201
        drafts = f"ws://127.0.0.1:{port}/ws/notes"
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(
                drafts,
                additional_headers={"X-API-Key": keys["notes"]},
                proxy=None,
                open_timeout=PATIENCE,
            ),
        ):
            pass
        assert refused.value.response.status_code == 403  # it may write, not read
    assert rows("SELECT author FROM notes") == [("notes",)]


def test_it_keeps_the_import_contract(notes: NewApp) -> None:
    """With its name wherever `orders` stands, as the page says."""
    ours = (ROOT / ".importlinter").read_text()
    contract = re.sub(r"^( +)orders$", r"\1orders\n\1notes", ours, flags=re.MULTILINE)
    contract = contract.replace("orders | analytics", "orders | notes | analytics")
    contract = contract.replace("    orders.events\n", "    orders.events\n    notes.events\n")
    config = notes.folder / "importlinter.ini"
    config.write_text(contract)
    linter = str(Path(sys.executable).with_name("lint-imports"))
    notes.run(linter, "--config", str(config), "--no-cache")
    tasks = notes.folder / "notes/tasks.py"
    tasks.write_text(f"{tasks.read_text()}\nfrom orders import services as theirs\n")
    told = notes.run(linter, "--config", str(config), "--no-cache", fails=True)
    assert "notes.tasks -> orders.services" in told


def test_it_is_written_as_the_house_is(notes: NewApp) -> None:
    ours = json.dumps([str(ROOT), str(notes.folder)])
    options = ("--no-cache", "--config", "pyproject.toml", "--config", f"src = {ours}")
    folder = str(notes.folder / "notes")
    notes.run("-m", "ruff", "check", *options, folder)
    notes.run("-m", "ruff", "format", "--diff", *options, folder)
