"""The command `manage.py generate_load`: its options, what it refuses, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from devtools.testing import zygote
from devtools.testing.patience import PATIENCE
from devtools.testing.processes import REPOSITORY, child_environment, free_port
from devtools.testing.web import Web, web_process
from eventsite.settings.env import environment
from loadtest.generator import GeneratorPlan
from loadtest.management.commands.generate_load import Command, _plan
from loadtest.target import ask_target
from loadtest.tests.conftest import stub_process


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    with stub_process() as url:
        yield url


# The command


ELSEWHERE = ("--url", "http://127.0.0.1:1")


def test_what_is_not_said_is_as_the_contract_has_it() -> None:
    plan = planned("--rate", "1000", "--duration", "5m")
    assert (plan.rate, plan.seconds, plan.closed) == (1000, 300, 0)
    assert (plan.customers, plan.kind, plan.headers) == (5000, "orders", {})
    assert plan.url == f"http://127.0.0.1:{environment().port}"
    assert planned("--rate", "1").seed != planned("--rate", "1").seed


def test_every_option_reaches_the_plan() -> None:
    plan = planned(
        *("--closed", "7", "--duration", "1.5h", "--url", "http://x:1/", "--customers", "9"),
        *("--seed", "4", "--kind", "simple", "--arrivals", "even", "--max-in-flight", "3"),
        *("--timeout", "250ms", "--header", "X-API-Key: k: 1"),
    )
    assert plan == GeneratorPlan(
        url="http://x:1",
        seconds=5400,
        closed=7,
        kind="simple",
        customers=9,
        seed=4,
        arrivals="even",
        max_in_flight=3,
        timeout=0.25,
        headers={"X-API-Key": "k: 1"},
        run=plan.run,
    )


def planned(*arguments: str) -> GeneratorPlan:
    parser = Command().create_parser("manage.py", "generate_load")
    return _plan(GeneratorPlan, vars(parser.parse_args(list(arguments))))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return zygote.run("manage.py", "generate_load", *arguments, environment=os.environ)


def test_the_exit_code_is_0_when_every_threshold_is_kept(stub: str, tmp_path: Path) -> None:
    found, page = tmp_path / "load.json", tmp_path / "load.html"
    done = command(
        *("--url", f"{stub}/keeps", "--rate", "50", "--duration", "1s", "--arrivals", "even"),
        *(
            "--seed",
            "7",
            "--fail-if",
            "missing>0",
            "--fail-if",
            "errors>0%",
            "--fail-if",
            "p99>20s",
        ),
        *("--json", str(found), "--html", str(page), "--header", "Authorization: secret-word"),
    )
    assert done.returncode == 0, done.stderr
    assert "50 of 50 orders accepted" in done.stdout
    assert "not stored 0 of 50 orders" in done.stdout
    told = json.loads(found.read_text())
    assert (told["due"], told["values"]["accepted"], told["values"]["missing"]) == (50, 50, 0)
    assert told["configuration"]["seed"] == 7
    assert told["values"]["e2e_p99"] is None
    assert sum(slot["due"] for slot in told["timeline"]["slots"]) == 50
    assert sum(count for _, count in told["latency_buckets_us"]) == 50
    text = page.read_text()
    assert "<svg" in text
    assert "http://" not in text.replace(stub, "")  # it needs nothing from anywhere
    assert "secret-word" not in text + found.read_text() + done.stdout + done.stderr


def test_the_exit_code_is_1_when_one_is_crossed(stub: str) -> None:
    done = command(
        *("--url", f"{stub}/forgets", "--rate", "50", "--duration", "1s", "--arrivals", "even"),
        *("--fail-if", "p99>20s", "--fail-if", "missing>0"),
    )
    assert done.returncode == 1, done.stderr
    assert "Crossed: missing>0" in done.stderr
    assert "p99" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rate", "5", "--fail-if", "p98>1"), "'p98' is not a metric; the metrics are p50"),
        (("--rate", "5", "--closed", "3"), "not allowed with argument"),
        ((), "one of the arguments --rate --closed is required"),
        (("--rate", "5", "--duration", "5 minutes"), "write 90, 90s, 1.5m or 1h"),
        (("--rate", "5", "--url", "localhost:1"), "give one like http://127.0.0.1:8080"),
        (
            ("--rate", "5", "--url", "http://127.0.0.1:1", "--fail-if", "e2e_p99>1s"),
            "--check database",
        ),
        (("--rate", "5", "--check", "none", "--fail-if", "lost>0"), "cannot be known"),
        (("--rate", "5", "--check", "none", "--fail-if", "missing>0"), "cannot be known"),
        (("--rate", "5", *ELSEWHERE, "--fail-if", "lost>0"), "or missing, which HTTP shows"),
        (("--rate", "5", *ELSEWHERE, "--fail-if", "duplicates>0"), "or answered_twice"),
        (("--rate", "5", *ELSEWHERE, "--fail-if", "without_effect>0"), "cannot be known"),
        (("--rate", "5", "--json", "/nowhere/load.json"), "cannot be written"),
        (("--rate", "5", "--header", "nonsense"), "write 'Name: value'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_load(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((CommandError, SystemExit)) as refused:
        call_command_as_from_a_shell(*arguments)
    error = refused.value
    assert (error.returncode if isinstance(error, CommandError) else error.args[0]) == 2
    assert says in str(error) + capsys.readouterr().err


def call_command_as_from_a_shell(*arguments: str) -> None:
    made = Command()
    made._called_from_command_line = True  # type: ignore[attr-defined]
    parser = made.create_parser("manage.py", "generate_load")
    made.handle(**vars(parser.parse_args(list(arguments))))


def test_ctrl_c_ends_with_a_report(stub: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "manage.py", "generate_load", "--url", f"{stub}/keeps", "--rate", "50"],
        cwd=REPOSITORY,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()  # it begins
    time.sleep(1.0)
    child.send_signal(2)
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    assert "Ended early" in out
    assert "not stored 0 of" in out


class Stranger(BaseHTTPRequestHandler):
    """Somebody else's web server: it answers everything with 200."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Length", "16")
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    Stranger.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_program_gets_no_orders(stranger: str) -> None:
    done = command("--url", stranger, "--rate", "50", "--duration", "5m")
    assert done.returncode == 2
    assert f"{stranger} is not a server of this project" in done.stderr
    assert "Nothing was sent." in done.stderr
    assert Stranger.requests == ["GET /health/ready"]


def test_an_address_without_an_answer_ends_the_run_at_once() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = command("--url", url, "--rate", "50", "--duration", "5m")
    assert done.returncode == 2
    assert f"{url} does not answer (refused). Nothing was sent." in done.stderr


def test_a_process_that_is_not_well_may_be_loaded() -> None:
    """Its answer has the same shape, with status 503."""
    away = child_environment()["DATABASE_URL"].replace(
        f":{connection.settings_dict['PORT']}/", f":{free_port()}/"
    )
    with web_process(DATABASE_URL=away) as web:
        assert web.get("/health/ready").status == 503
        ask_target(f"http://127.0.0.1:{web.port}", headers={})


@pytest.mark.django_db
def test_the_database_is_asked_by_default(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --url it is this machine's stack; nothing applies the effects here."""
    monkeypatch.setattr(
        "loadtest.management.commands.generate_load.environment",
        lambda: type("Given", (), {"port": web.port}),
    )
    with pytest.raises(CommandError, match="Crossed: lost>0"):
        call_command(
            *("generate_load", "--rate=50", "--duration=0.2s", "--settle=0.1s", "--seed=1"),
            "--fail-if=lost>0",
        )
