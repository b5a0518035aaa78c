"""The Compose files keep their promises, and a spoiled file is noticed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from devtools.testing.compose_promises import (
    COMPOSE,
    ELK,
    ELK_LOGS,
    PROCESSES,
    PROMISES,
    ROOT,
    STACK,
    WATCH,
    Promise,
    Stack,
    builds_the_image_once,
    declares_its_volumes,
    forgets_no_task_when_redis_is_full,
    gives_each_process_its_port,
    holds_no_privileges,
    keeps_our_processes_read_only,
    leaves_out_what_is_on_request,
    lets_pgadmin_in,
    load,
    mounts_files_that_exist,
    passes_settings_on,
    pins_images,
    points_at_its_own_servers,
    publishes_loopback_only,
    publishes_what_the_contract_names,
    relays_from_its_own_rabbitmq,
    runs_all_processes,
    runs_without_root,
    scrapes_every_process,
    starts_in_order_of_health,
    stops_in_peace_and_starts_again,
    tells_its_health,
)

LOG_LINE = """
import django
django.setup()
import structlog
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("orders").exception("something", topic="t", correlation_id="c", error="e")
"""
# promise, service (or a path into the file), key, what it is spoiled with (None: taken away)
SPOILED: tuple[tuple[Promise, str, str, Any], ...] = (
    (starts_in_order_of_health, "web", "depends_on", {"prepar": {"condition": "service_healthy"}}),
    (starts_in_order_of_health, "postgres", "healthcheck", {"disable": True}),
    (starts_in_order_of_health, "prepare", "restart", "always"),
    (starts_in_order_of_health, "pgadmin", "depends_on.postgres.condition", "service_started"),
    (publishes_loopback_only, "redis", "ports", ["6379:6379"]),
    (publishes_loopback_only, "redis", "ports", ["0.0.0.0:6379:6379"]),
    (publishes_loopback_only, "kafka", "network_mode", "host"),
    (publishes_what_the_contract_names, "pgadmin", "ports", ["127.0.0.1:5051:5050"]),
    (publishes_what_the_contract_names, "kafka", "container_name", None),
    (tells_its_health, "bridge", "healthcheck", None),
    (tells_its_health, "redis", "healthcheck", {"disable": True}),
    (runs_without_root, "postgres", "user", None),
    (runs_without_root, "web", "user", "0:0"),
    (holds_no_privileges, "web", "cap_drop", None),
    (holds_no_privileges, "web", "cap_add", ["SYS_ADMIN"]),
    (holds_no_privileges, "kafka", "security_opt", None),
    (holds_no_privileges, "web", "volumes", ["/var/run/docker.sock:/var/run/docker.sock"]),
    (stops_in_peace_and_starts_again, "bridge", "stop_grace_period", "5s"),
    (stops_in_peace_and_starts_again, "bridge", "init", None),
    (stops_in_peace_and_starts_again, "beat", "restart", "no"),
    (keeps_our_processes_read_only, "beat", "read_only", None),
    (keeps_our_processes_read_only, "beat", "tmpfs", ["/tmp"]),
    (keeps_our_processes_read_only, "beat", "user", "1000"),
    (pins_images, "redis", "image", "redis"),
    (pins_images, "redis", "image", "redis:latest"),
    (builds_the_image_once, "web", "build", {"context": ".."}),
    (builds_the_image_once, "web", "pull_policy", None),
    (declares_its_volumes, "redis", "volumes", ["lost-data:/data"]),
    (declares_its_volumes, "postgres", "volumes", ["postgres-data:/var/lib/postgresql/data"]),
    (declares_its_volumes, "grafana", "volumes", ["grafana-data:/x", "./no-such:/y:ro"]),
    (mounts_files_that_exist, "pgadmin", "configs", [{"source": "servers", "target": "/x"}]),
    (gives_each_process_its_port, "bridge", "environment.METRICS_PORT", None),
    (gives_each_process_its_port, "web", "environment.METRICS_PORT", "9100"),
    (passes_settings_on, "worker-effects", "environment.FEED_WINDOW", None),
    (passes_settings_on, "web", "environment.SMTP_URL", "${SMTP_URL:-}"),
    (scrapes_every_process, "beat", "environment.METRICS_PORT", "9101"),
    (scrapes_every_process, "relay", "image", "relay:1"),
    (leaves_out_what_is_on_request, "kibana", "profiles", None),
    (leaves_out_what_is_on_request, "grafana", "profiles", ["elk"]),
    (leaves_out_what_is_on_request, "web", "depends_on", {"filebeat": {}}),
    (points_at_its_own_servers, "beat", "environment.KAFKA_BOOTSTRAP_SERVERS", "kafka:9092"),
    (points_at_its_own_servers, "beat", "environment.REDIS_URL", "redis://localhost:6379/0"),
    (points_at_its_own_servers, "postgres", "environment.POSTGRES_DB", "events"),
    (relays_from_its_own_rabbitmq, "rabbitmq", "hostname", None),
    (relays_from_its_own_rabbitmq, "rabbitmq", "environment.RABBITMQ_DEFAULT_PASS", "secret"),
    (relays_from_its_own_rabbitmq, "worker-effects", "environment.RABBITMQ_URL", ""),
    (relays_from_its_own_rabbitmq, "relay", "depends_on.rabbitmq", None),
    (lets_pgadmin_in, "postgres", "environment.POSTGRES_PASSWORD", "secret"),
    (forgets_no_task_when_redis_is_full, "redis", "command", "redis-server --appendonly yes"),
    (runs_all_processes, "beat", "image", "celery:5.5"),
)


def _spoil(stack: Stack, service: str, key: str, value: Any) -> Stack:
    spoiled = copy.deepcopy(stack)
    target = spoiled["services"][service]
    *path, last = key.split(".")
    for step in path:
        target = target[step]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return spoiled


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise_is_kept(promise: Promise) -> None:
    assert list(promise(STACK)) == []


@pytest.mark.parametrize(
    ("promise", "service", "key", "value"),
    SPOILED,
    ids=[f"{promise.__name__}-{service}-{key}" for promise, service, key, _ in SPOILED],
)
def test_promise_can_break(promise: Promise, service: str, key: str, value: Any) -> None:
    assert list(promise(_spoil(STACK, service, key, value)))


def test_every_promise_is_shown_to_break() -> None:
    assert {promise for promise, *_ in SPOILED} == set(PROMISES)


def _schema_check(*files: Path) -> subprocess.CompletedProcess[str]:
    """The published Compose schema, as the check-jsonschema package carries it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)


def test_files_follow_the_compose_schema() -> None:
    answer = _schema_check(ROOT / "compose.yaml", COMPOSE, WATCH, ELK, ELK_LOGS)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("web", "read-only", True),
        ("web", "depends_on", {"kafka": {"condition": "healthy"}}),
        ("redis", "healthcheck", {"test": ["CMD", "true"], "period": "1s"}),
    ],
)
def test_schema_notices(tmp_path: Path, service: str, key: str, value: Any) -> None:
    spoiled = tmp_path / "compose.yaml"
    spoiled.write_text(yaml.safe_dump(_spoil(STACK, service, key, value)))
    answer = _schema_check(spoiled)
    assert answer.returncode == 1
    assert f"services.{service}" in answer.stdout


def test_root_file_includes_the_stack() -> None:
    root = load(ROOT / "compose.yaml")
    assert [ROOT / path for path in root["include"]] == [COMPOSE, WATCH, ELK]
    assert root["name"] == STACK["name"]  # one project, whichever of the files is named


def test_all_our_logs_go_to_filebeat_where_it_is_asked_for() -> None:
    sent = load(ELK_LOGS)["services"]
    assert sent.keys() == PROCESSES
    for service in sent.values():
        (port,) = STACK["services"]["filebeat"]["ports"]
        address = service["logging"]["options"]["syslog-address"]
        assert address == "udp://" + port.removesuffix("/udp").rpartition(":")[0]
    given = yaml.safe_load((COMPOSE.parent / "elk" / "filebeat.yml").read_text())
    (taken,) = given["filebeat.inputs"]
    assert (taken["type"], taken["host"]) == ("udp", "0.0.0.0:5514")
    (server,) = given["output.elasticsearch"]["hosts"]
    assert urlsplit(server).hostname in STACK["services"]


def test_the_index_template_knows_the_fields_of_a_line() -> None:
    template = json.loads((COMPOSE.parent / "elk" / "template.json").read_text())
    known = template["template"]["mappings"]["properties"]
    line = subprocess.run(
        [sys.executable, "-c", LOG_LINE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "eventsite.settings.local"},
    ).stderr.splitlines()[-1]
    assert {"at", "event", "level", "service", "exception"} <= json.loads(line).keys()
    assert json.loads(line).keys() - {"topic"} <= known.keys()
