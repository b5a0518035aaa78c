"""The chart's values say what the code has, and its schema refuses what cannot be. Needs no helm."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from django.conf import settings
from prometheus_client import REGISTRY

import feeds.metrics  # noqa: F401
import notifications.metrics  # noqa: F401
from eventsite.roles import ROLES
from eventsite.settings.env import Environment
from outbox import conf

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "event-processor"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
WORKERS = {worker["role"]: worker for worker in VALUES["workers"]}
READ_BY_LIBRARIES = {"DJANGO_SETTINGS_MODULE"}


def test_there_is_a_deployment_for_each_role_of_the_code() -> None:
    assert [worker["role"] for worker in VALUES["workers"]] == list(ROLES)
    assert set(settings.WIRING.roles) == set(ROLES)


def _handlers(queries: str) -> set[str]:
    """Those whose age the queries read."""
    everybody = {route.handler for route in conf.routes()}
    found: set[str] = set()
    for operator, names in re.findall(r'handler(=|=~|!~)"([^"]+)"', queries):
        named = set(names.split("|"))
        assert named <= everybody
        found |= everybody - named if operator == "!~" else named
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_scaled_by_the_handlers_that_it_serves(role: str) -> None:
    queues = settings.WIRING.roles[role]
    served = {route.handler for route in conf.routes() if route.queue in queues}
    queries = " ".join(each["query"] for each in WORKERS[role]["backlog"])
    assert _handlers(queries) == served


@pytest.mark.parametrize("role", ROLES)
def test_series_of_the_backlog_exist_and_are_seconds(role: str) -> None:
    known = {family.name: family for family in REGISTRY.collect()}
    for each in WORKERS[role]["backlog"]:
        bare = re.sub(r"\{[^}]*\}", "", each["query"])
        names = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", bare))
        assert names
        assert names <= known.keys()
        assert any(name.endswith("_seconds") for name in names)


def _variables() -> set[str]:
    """What a process reads from its environment."""
    read = set(READ_BY_LIBRARIES)
    for name, field in Environment.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [name])
        read |= {str(choice).upper() for choice in choices}
    return read


def test_every_variable_is_read() -> None:
    pod = (CHART / "templates" / "_pod.tpl").read_text()
    given = {*VALUES["config"], *VALUES["secrets"], *re.findall(r"name: ([A-Z_]+), value", pod)}
    assert {"BUILD", "METRICS_PORT", "DATABASE_URL"} <= given
    assert given <= _variables()


def test_the_schema_knows_the_variables_that_may_hold_a_secret() -> None:
    refused = SCHEMA.schema["properties"]["config"]["properties"]
    assert refused.keys() <= _variables()
    secrets = {name for name in _variables() if re.search(r"PASSWORD|SECRET|TOKEN", name)}
    assert secrets | {"DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"} <= refused.keys()


def test_the_rules_are_those_of_prometheus() -> None:
    """A link, so that there is one of them; helm reads no file outside of a chart."""
    link = CHART / "files" / "alerts.yml"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "docker" / "prometheus" / "alerts.yml"


def test_the_image_s_user_is_the_chart_s() -> None:
    [user] = re.findall(r"^USER (\d+):\1$", (ROOT / "docker" / "Dockerfile").read_text(), re.M)
    pod = (CHART / "templates" / "_pod.tpl").read_text()
    assert f"runAsUser: {user}\n" in pod
    assert f"runAsGroup: {user}\n" in pod


def _with(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(VALUES)
    values["config"] |= {"ALLOWED_HOSTS": "a.example", "KAFKA_BOOTSTRAP_SERVERS": "k:9092,l:9092"}
    *parents, last = path.split(".")
    target: Any = values
    for parent in parents:
        target = target[int(parent)] if isinstance(target, list) else target[parent]
    target[last] = value
    return values


def _complaints(path: str, value: Any) -> list[str]:
    return [error.json_path for error in SCHEMA.iter_errors(_with(path, value))]


def test_the_schema_is_one_and_takes_the_values() -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    assert _complaints("nameOverride", "") == []
    # Without what has no default.
    found = {error.json_path for error in SCHEMA.iter_errors(VALUES)}
    assert found == {"$.config.ALLOWED_HOSTS", "$.config.KAFKA_BOOTSTRAP_SERVERS"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("web.replica", 2),
        ("web.replicas", 0),
        ("web.replicas", "2"),
        ("web.autoscaling.cpuPercent", 800),
        ("web.graceSeconds", 5),
        ("web.resources", {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}),
        ("web.resources.limits.memory", "a lot"),
        ("image.tag", "latest"),
        ("image.digest", "sha256:1234"),
        ("image.repository", "shop:1.0"),
        ("image.pullPolicy", "Sometimes"),
        ("config.ALLOWED_HOSTS", ""),
        ("config.ALLOWED_HOSTS", "*"),
        ("config.KAFKA_BOOTSTRAP_SERVERS", "kafka"),
        ("config.DATABASE_URL", "postgresql://u:p@h/d"),
        ("config.DJANGO_SECRET_KEY", "0123456789"),
        ("config.METRICS_PORT", "1"),
        ("config.log_level", "INFO"),
        ("config.FEED_WINDOW", [1]),
        ("secrets.DATABASE_URL", None),
        ("secrets.DATABASE_URL", "postgresql://u:p@h/d"),
        ("secrets.REDIS_URL", {"name": "s", "only": ["everybody"]}),
        ("secrets.SMTP_URL", {"value": "smtp://u:p@h"}),
        ("workers", []),
        ("workers.0.min", 0),
        ("workers.0.backlog", []),
        ("workers.0.backlog.0.seconds", 0),
        ("workers.0.queue", "outbox"),
        ("keda.enabled", True),
        ("awaitVersion.seconds", 301),
        ("awaitVersion.seconds", "300"),
        ("prepare.tries", 0),
        ("ingress.enabled", True),
        ("ingress.hosts", [{"host": "shop.example.org"}]),
        ("service.type", "ExternalName"),
        ("networkPolicy.egressPorts", []),
        ("networkPolicy.egressPorts", ["https"]),
        ("monitoring.rules.labels", {"release": 1}),
        ("filesSecret", "Two Words"),
        ("replicaCount", 3),
    ],
)
def test_nonsense_is_refused(path: str, value: Any) -> None:
    complaints = _complaints(path, value)
    assert complaints
    part = path.partition(".")[0]
    assert all(each == "$" or each.startswith(f"$.{part}") for each in complaints)
