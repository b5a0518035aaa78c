"""`manage.py generate_load` over real HTTP: its verdict on accepted orders, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from analytics.models import SalesMetric
from analytics.services import fold_additions
from devtools.testing.histories import apply, order_events
from devtools.testing.patience import PATIENCE
from devtools.testing.processes import REPOSITORY, child_environment, free_port
from devtools.testing.web import Web, web_process
from eventsite.settings.env import environment
from loadtest.generator import GeneratorPlan, generate
from loadtest.management.commands.generate_load import Command, _plan
from loadtest.tally import LoadTally
from loadtest.target import ask_target
from loadtest.tests.conftest import stub_process
from loadtest.verify import LoadVerdict, verify_by_database, verify_by_http
from orders.models import Order
from orders.services import NewOrder, NewOrderLine, place_orders
from outbox.envelope import TraceContext
from outbox.models import InboxReceipt, OutboxEvent


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    with stub_process() as url:
        yield url


class Run:
    """Ten orders over HTTP, and their effects when they are asked for."""

    def __init__(self, web: Web, kind: str = "orders") -> None:
        self.plan = GeneratorPlan(
            url=f"http://127.0.0.1:{web.port}", rate=100, seconds=0.1, arrivals="even", kind=kind
        )
        self.tally = generate(self.plan)
        assert (self.tally.accepted, self.tally.errors) == (10, {})
        [(self.ids, _)] = self.tally.batches()

    def verdict(self, within: float = 0.0) -> LoadVerdict:
        return verify_by_database(self.tally, self.plan.run, within=within)


@pytest.fixture
def run(web: Web) -> Run:
    """Ten orders, applied."""
    made = Run(web)
    apply(order_events())
    return made


def delete(sql: str, value: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, (value,))


def place_again(run: Run, number: int) -> UUID:
    """What a server would do that takes one request twice."""
    order = NewOrder(
        customer_id="c1",
        at=datetime.now(UTC),
        lines=(NewOrderLine(product_id="p1", quantity=1, price=Decimal(1)),),
        trace=TraceContext(correlation_id=f"{run.plan.run}-{number}"),
    )
    [placed] = place_orders([order])
    apply(order_events(placed.order_id))
    return UUID(placed.order_id)


def test_whole(run: Run) -> None:
    found = run.verdict()
    assert (found.lost, found.duplicates, found.figures, found.unanswered) == (0, 0, 0, 0)
    assert found.effect is not None
    assert found.effect.count == 10
    assert found.effect.max > 0
    assert Order.objects.count() == 10


def test_nothing_is_applied_yet(web: Web) -> None:
    found = Run(web).verdict(within=0.3)
    assert (found.missing, found.without_effect, found.lost) == (0, 10, 10)
    assert found.waited >= 0.3
    assert set(found.examples) == set(Order.objects.values_list("id", flat=True))


def test_a_removed_order_is_found(run: Run) -> None:
    gone = run.ids[3]
    for sql in (
        "DELETE FROM order_lines WHERE order_id = %s",
        "DELETE FROM order_changes WHERE order_id = %s",
        "DELETE FROM orders WHERE id = %s",
    ):
        delete(sql, gone)
    found = run.verdict()
    assert (found.missing, found.without_effect, found.lost) == (1, 0, 1)
    assert found.examples == [gone]
    assert found.figures  # they still hold it


def test_an_order_whose_effect_is_lost_is_found(run: Run) -> None:
    event = order_events(run.ids[3])[0]
    InboxReceipt.objects.filter(event_id=event.event_id).delete()
    found = run.verdict()
    assert (found.missing, found.without_effect, found.examples) == (0, 1, [run.ids[3]])


def test_a_parked_effect_is_none(run: Run) -> None:
    event = order_events(run.ids[3])[0]
    InboxReceipt.objects.filter(event_id=event.event_id).update(outcome=InboxReceipt.Outcome.PARKED)
    assert run.verdict().without_effect == 1


def test_the_second_event_of_a_simple_order_counts_too(web: Web) -> None:
    made = Run(web, kind="simple")
    apply(order_events())
    assert made.verdict().without_effect == 10
    for event in OutboxEvent.objects.filter(topic="orders.created"):
        InboxReceipt.objects.create(handler="record_processed_events", event_id=event.event_id)
    assert made.verdict().lost == 0


def test_what_the_outbox_let_go_is_done(run: Run) -> None:
    OutboxEvent.objects.all().delete()
    found = run.verdict()
    assert (found.lost, found.stored_twice) == (0, 0)


def test_a_request_stored_twice_is_found(run: Run) -> None:
    place_again(run, 4)
    found = run.verdict()
    assert (found.stored_twice, found.duplicates, found.lost) == (1, 1, 0)


def test_an_order_without_an_answer_is_no_duplicate(run: Run) -> None:
    place_again(run, 11)
    found = run.verdict()
    assert (found.unanswered, found.duplicates) == (1, 0)


def test_orders_of_others_do_not_count(run: Run) -> None:
    other = GeneratorPlan(url="http://x", seconds=1).run
    place_orders(
        [
            NewOrder(
                customer_id="c1",
                at=datetime.now(UTC),
                amount=None,
                trace=TraceContext(correlation_id=f"{other}-1"),
            )
        ]
    )
    found = run.verdict()
    assert (found.unanswered, found.duplicates) == (0, 0)


def test_an_effect_applied_twice_is_in_the_figures(run: Run) -> None:
    fold_additions()
    metric = SalesMetric.objects.get(metric_name="orders_total", dimension="all")
    SalesMetric.objects.filter(metric_name=metric.metric_name, dimension=metric.dimension).update(
        value=metric.value + 1
    )
    assert run.verdict().figures == 1


def test_the_same_answer_twice_is_a_duplicate(stub: str) -> None:
    plan = GeneratorPlan(url=f"{stub}/same", rate=50, seconds=0.1, arrivals="even")
    found = verify_by_http(generate(plan), plan.url, timeout=5, headers={})
    assert (found.answered_twice, found.duplicates) == (4, None)


# Over HTTP alone


def accepted(url: str) -> tuple[LoadTally, LoadVerdict]:
    tally = generate(GeneratorPlan(url=url, rate=100, seconds=0.2, arrivals="even"))
    assert tally.accepted == 20
    return tally, verify_by_http(tally, url, timeout=5, headers={})


def test_over_http_each_order_is_asked_for(stub: str) -> None:
    _, found = accepted(f"{stub}/keeps")
    assert (found.missing, found.unchecked) == (0, 0)
    assert (found.lost, found.without_effect, found.effect, found.figures) == (None,) * 4


def test_over_http_a_forgotten_order_is_found(stub: str) -> None:
    _, found = accepted(f"{stub}/forgets")
    assert (found.missing, found.unchecked, len(found.examples)) == (4, 0, 4)


def test_over_http_a_server_that_is_gone_leaves_orders_unknown(stub: str) -> None:
    tally, _ = accepted(f"{stub}/keeps")
    found = verify_by_http(tally, f"http://127.0.0.1:{free_port()}", timeout=1, headers={})
    assert (found.missing, found.unchecked) == (0, 20)


def test_over_real_http(run: Run) -> None:
    gone = run.ids[0]
    for table, column in (
        ("order_lines", "order_id"),
        ("order_changes", "order_id"),
        ("orders", "id"),
    ):
        delete(f"DELETE FROM {table} WHERE {column} = %s", gone)
    found = verify_by_http(run.tally, run.plan.url, timeout=10, headers={})
    assert (found.missing, found.examples) == (1, [gone])


def test_its_headers_go_with_every_request(web: Web) -> None:
    """A key that is sent is looked at on the local stack too."""
    url, wrong = f"http://127.0.0.1:{web.port}", {"X-API-Key": "nobody's"}
    plan = GeneratorPlan(url=url, rate=100, seconds=0.1, arrivals="even", headers=wrong)
    assert generate(plan).errors == {"status 401": 10}
    tally = generate(replace(plan, headers={}))
    assert tally.accepted == 10
    assert verify_by_http(tally, url, timeout=10, headers=wrong).unchecked == 10


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
    return subprocess.run(
        [sys.executable, "manage.py", "generate_load", *arguments],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


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
