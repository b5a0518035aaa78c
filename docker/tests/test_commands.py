"""What the containers run exists: commands with their options, queues, variables, the web app."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery.app.utils import find_app
from celery.bin.celery import celery
from django.core.management import CommandError, get_commands, load_command_class

from devtools.testing import zygote
from eventsite.settings.env import Environment

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())[
    "services"
]
OURS = {name: s for name, s in SERVICES.items() if s["image"] == "event-processor:latest"}
READ_BY_LIBRARIES = {"DJANGO_SETTINGS_MODULE"}


def _image_command() -> list[str]:
    """The image's own CMD, which web runs."""
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    command: list[str] = json.loads(lines[-1].removeprefix("CMD "))
    return command


def _programs(service: dict[str, Any]) -> list[list[str]]:
    """The command lines a service runs: the lines of its shell script, or its one command."""
    match service.get("command"):
        case None:
            return [_image_command()]
        case ["sh", "-ec", script]:
            return [shlex.split(line) for line in script.splitlines()]
        case command:
            return [shlex.split(command)]


def _check(words: list[str]) -> None:
    """Raises what the program itself would refuse the command line with."""
    match words:
        case ["python", "manage.py", name, *options]:
            command = load_command_class(get_commands()[name], name)
            parser = command.create_parser("manage.py", name)
            parser.parse_args(options)
        case ["celery", "-q", "-A", app, name, *options] | ["celery", "-A", app, name, *options]:
            find_app(app)
            _parse(celery.commands[name], options)
        case _:
            raise LookupError(shlex.join(words))


def _parse(command: click.Command, options: list[str]) -> None:
    command.make_parser(click.Context(command)).parse_args(options)


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(name: str) -> None:
    for words in _programs(OURS[name]):
        _check(words)


@pytest.mark.parametrize(
    "line",
    [
        "python manage.py run_brigde",
        "python manage.py run_bridge --no-such-option",
        "celery -A eventsites beat",
        "celery -A eventsite beet",
        "python manage.py run_worker effect",
        "python manage.py run_web --worker-count 2",
        "run_bridge",
    ],
)
def test_wrong_commands_are_noticed(line: str) -> None:
    with pytest.raises((CommandError, LookupError, ImportError, AttributeError, click.UsageError)):
        _check(shlex.split(line))


def test_web_serves_the_application_on_the_published_port() -> None:
    python, manage, name, *options = _image_command()
    assert (python, manage, name) == ("python", "manage.py", "run_web")
    command = load_command_class(get_commands()[name], name)
    parameters = command.create_parser("manage.py", name).parse_args(options)
    module, _, attribute = parameters.application.partition(":")
    assert callable(getattr(import_module(module), attribute))
    assert parameters.host == "0.0.0.0"
    assert SERVICES["web"]["ports"] == [f"127.0.0.1:8080:{parameters.port}"]


def _roles(services: Iterable[dict[str, Any]]) -> set[str]:
    lines = [words for service in services for words in _programs(service)]
    return {words[3] for words in lines if words[2:3] == ["run_worker"]}


QUEUES_IN_USE = """
import django, json
django.setup()
from django.conf import settings
from celery.app.utils import find_app
from outbox.conf import routes
app = find_app("eventsite")
app.loader.import_default_modules()
queues = {route.queue for route in routes()}
queues |= {entry["options"]["queue"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
queues |= {task.queue for task in app.tasks.values() if getattr(task, "queue", None)}
print(json.dumps({"used": sorted(queues), "roles": settings.WIRING.roles}))
"""


def test_every_queue_is_served() -> None:
    """Queues of the event map, of beat and of the tasks, as the stack's own settings have them."""
    given = OURS["worker-effects"]["environment"]
    left_out = {
        name for name, value in given.items() if value.startswith("${")
    }  # of whoever starts the stack
    environment = {**os.environ, **{name: given[name] for name in given.keys() - left_out}}
    del environment["PROMETHEUS_MULTIPROC_DIR"]  # a directory of the container
    answer = zygote.run("-c", QUEUES_IN_USE, environment=environment)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert _roles(OURS.values()) == set(found["roles"])
    assert {queue for queues in found["roles"].values() for queue in queues} == set(found["used"])


def test_every_variable_is_read() -> None:
    """A misspelt variable would leave its default in force, silently."""
    read = set(READ_BY_LIBRARIES)
    for name, field in Environment.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [name])
        read |= {str(choice).upper() for choice in choices}
    for name, service in OURS.items():
        assert set(service["environment"]) <= read, name
