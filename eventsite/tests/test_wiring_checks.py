"""A wrong line in a wiring.py stops the start, and roles are the same wherever they are named."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest
import yaml
from django.conf import settings

from devtools.localstack import PLAN
from devtools.testing import zygote
from eventsite import wiring_checks
from eventsite.composition import Wiring
from eventsite.roles import ROLES, Role
from eventsite.wiring_checks import check_wiring
from outbox.declaration import Every, TaskQueue
from restapi.declaration import App, Path, Socket

SOCKET = Socket(path=Path(pattern="ws/notes"), consumer="devtools.testing.sockets.consumers.Bytes")
ROOT = FilePath(__file__).resolve().parents[2]
WRONG_SETTINGS = f"""
from {os.environ["DJANGO_SETTINGS_MODULE"]} import *
from outbox.declaration import Every
from restapi.declaration import App

wrong = App(beat=(Every(1.0, "notes.nobody_knows"),))
WIRING.__dict__["declared"] = {{**WIRING.declared, "notes": wrong}}
"""


def errors(monkeypatch: pytest.MonkeyPatch, **declared: Any) -> list[str | None]:
    """What is wrong with the installed apps and one that declares this."""
    wiring = Wiring(())
    wiring.__dict__["declared"] = {**settings.WIRING.declared, "notes": App(**declared)}
    monkeypatch.setattr(settings, "WIRING", wiring)
    return [error.id for error in check_wiring()]


def test_the_installed_apps_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_wiring() == []
    assert errors(monkeypatch) == []


@pytest.mark.parametrize(
    ("declared", "error"),
    [
        ({"queues": (TaskQueue("notes", role="notes"),)}, "eventsite.E011"),
        ({"queues": (TaskQueue("upkeep"),)}, "eventsite.E003"),
        ({"beat": (Every(1.0, "notes.nobody_knows"),)}, "eventsite.E004"),
        ({"beat": (Every(1.0, "celery.backend_cleanup", queue="notes"),)}, "eventsite.E005"),
        ({"beat": (Every(1.0, "outbox.purge"),)}, "eventsite.E006"),
        ({"paths": (Path(pattern="orders"),)}, "eventsite.E007"),
        ({"sockets": (SOCKET, SOCKET)}, "eventsite.E007"),
        ({"sockets": (replace(SOCKET, consumer="notes.Nothing"),)}, "eventsite.E010"),
        ({"hot_paths": ("orders.api.commands.NOTHING",)}, "eventsite.E008"),
        ({"hot_paths": ("orders.api.commands.read_body",)}, "eventsite.E008"),
        ({"status_logs": ("notes.NOTHING",)}, "eventsite.E013"),
        ({"status_logs": ("devtools.testing.ticks.log.ALL",)}, "eventsite.E013"),
        ({"status_logs": ("devtools.testing.ticks.log.TICKS",) * 2}, "eventsite.E014"),
    ],
)
def test_each_mistake_has_its_error(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any], error: str
) -> None:
    assert errors(monkeypatch, **declared) == [error]


@pytest.mark.parametrize("command", [("run_worker", "effects"), ("run_bridge",)])
def test_who_has_a_wrong_declaration_does_not_start(
    tmp_path: FilePath, command: tuple[str, ...]
) -> None:
    (tmp_path / "wrong_settings.py").write_text(WRONG_SETTINGS)
    python_path = f"{tmp_path}{os.pathsep}{ROOT}"
    given = {"DJANGO_SETTINGS_MODULE": "wrong_settings", "PYTHONPATH": python_path}
    started = zygote.run("manage.py", *command, environment=os.environ | given)
    assert (started.returncode, "eventsite.E004" in started.stderr) == (1, True), started.stderr


def test_a_hot_path_has_its_declared_path(monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = Wiring(())
    roles = ("outbox", "notifications")  # whose queues every role has
    wiring.__dict__["declared"] = {
        "notes": App(hot_paths=("eventsite.web.health.ALIVE",)),
        **{app: settings.WIRING.declared[app] for app in roles},
    }
    monkeypatch.setattr(settings, "WIRING", wiring)
    assert [error.id for error in check_wiring()] == ["eventsite.E009"]


def test_a_role_without_a_queue_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring_checks, "ROLES", {**ROLES, "idle": Role("idle", processes=1)})
    assert [error.id for error in check_wiring()] == ["eventsite.E012"]


def roles_in(text: str) -> list[str]:
    return re.findall(r"run_worker ([\w-]+)", text)


def test_every_role_has_its_worker_everywhere() -> None:
    """In the local stack (and so in chaos and the benchmarks), in Compose, and in the docs."""
    plan = {spec.name: list(spec.command[-2:]) for spec in PLAN.processes}
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    for role in ROLES.values():
        assert plan[role.process] == ["run_worker", role.name]
        service = services[role.process]
        assert roles_in(service["command"]) == [role.name]
        assert service["environment"]["SERVICE_NAME"] == role.process
    assert {name for name in plan if name.startswith("worker-")} == {
        role.process for role in ROLES.values()
    }
    architecture = (ROOT / "docs/architecture.md").read_text()
    assert sorted(roles_in(architecture)) == sorted(ROLES)
