"""Helm has no complaint about the chart, and Kubernetes takes what it makes, by the published schemas."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from devtools.testing.chart import CHART, TOOLS, VALUES, Manifest, helm, of, render, spoiled

OLDEST = "1.29"  # that the chart takes
OF_KUBERNETES = dict.fromkeys((OLDEST, "1.32", kubernetes_validate.latest_version()))
NAMES = list(VALUES)


def _one_spoiled(name: str, where: str, path: str, value: Any) -> Manifest:
    """A manifest of VALUES[name], with one field changed."""
    kind, _, wanted = where.partition("/")
    changed = dict(of(spoiled(render(name), where, path, value), kind))
    return changed[wanted]


@pytest.mark.parametrize("name", NAMES)
def test_lint_has_no_complaint(name: str) -> None:
    told = helm("lint", "--strict", "--quiet", values=VALUES[name])
    assert told.returncode == 0, told.stdout + told.stderr


def test_lint_complains(tmp_path: Path) -> None:
    chart = tmp_path / "event-processor"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text())
    (chart / "templates" / "a.yaml").write_text("a: {{ .Values.b.c }}\n")
    assert helm("lint", "--strict", values={}, chart=chart).returncode != 0


def test_helm_holds_values_to_the_schema() -> None:
    told = helm("template", "shop", values={"web": {"replicas": "two"}})
    assert told.returncode != 0
    assert "replicas" in told.stderr


def test_notes_name_what_there_is(tmp_path: Path) -> None:
    """Helm shows them at an install alone; here they are made as a manifest."""
    chart = tmp_path / "event-processor"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + notes + "{{ end }}")
    (chart / "templates" / "notes.yaml").write_text(
        'kind: Notes\nnotes: |\n  {{- include "notes" . | nindent 2 }}\n'
    )
    arguments = ("template", "shop", "--namespace", "shops", "--show-only", "templates/notes.yaml")
    told = helm(*arguments, values={}, chart=chart)
    assert told.returncode == 0, told.stderr
    text = yaml.safe_load(told.stdout)["notes"]
    named = set(re.findall(r"(deployment|service|job)/([\w-]+)", text))
    assert {kind for kind, _ in named} == {"deployment", "service", "job"}
    there = {(each["kind"].lower(), each["metadata"]["name"]) for each in render("as it comes")}
    assert named <= there
    assert "-n shops" in text
    assert "keda.enabled=true" in text


@pytest.mark.parametrize("version", OF_KUBERNETES)
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_takes_them(name: str, version: str) -> None:
    """By the schema of its own API, unknown fields refused."""
    for each in render(name):
        if "." not in each["apiVersion"].partition("/")[0] or ".k8s.io" in each["apiVersion"]:
            kubernetes_validate.validate(each, version, strict=True)


def test_kubernetes_refuses_a_field_that_it_does_not_know() -> None:
    changed = _one_spoiled("nothing", "Deployment/web", "spec.template.spec.readOnly", True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(changed, OLDEST, strict=True)


@cache
def _definition(group: str, kind: str) -> Manifest:
    """The CustomResourceDefinition of a kind that KEDA or prometheus-operator brings."""
    file = TOOLS / "crds" / f"{group}_{kind.lower()}s.yaml"
    if not file.exists():
        pytest.skip(f"{file.name} is not there: deploy/install-tools fetches it")
    definition: Manifest = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    assert definition["spec"]["names"]["kind"] == kind
    return definition


def _operators_schema(manifest: Manifest) -> dict[str, Any]:
    group, _, version = manifest["apiVersion"].partition("/")
    versions = _definition(group, manifest["kind"])["spec"]["versions"]
    [served] = [each for each in versions if each["name"] == version]
    schema: dict[str, Any] = _strict(served["schema"]["openAPIV3Schema"])
    # Of every kind, and so in no definition.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _strict(schema: Any) -> Any:
    """Kubernetes drops fields that it does not know; here they are refused."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(each) for key, each in schema.items()}
    if isinstance(pattern := made.get("pattern"), str) and "(?i)" in pattern:
        made["pattern"] = "(?i)" + pattern.replace("(?i)", "")  # Go takes it anywhere
    open_ended = made.get("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_ended:
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
    return made


def _of_operators(manifests: Iterable[Manifest]) -> list[Manifest]:
    groups = ("keda.sh/", "monitoring.coreos.com/")
    return [each for each in manifests if each["apiVersion"].startswith(groups)]


def test_operators_take_theirs() -> None:
    theirs = _of_operators(render("everything"))
    assert {each["kind"] for each in theirs} == {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
    for each in theirs:
        jsonschema.validate(each, _operators_schema(each))


@pytest.mark.parametrize(
    ("where", "path", "value"),
    [
        ("ScaledObject/worker-outbox", "spec.minReplicas", 1),
        ("ScaledObject/worker-outbox", "spec.triggers.0.metadata.threshold", 10),
        ("ServiceMonitor/shop-event-processor", "spec.endpoints.0.interval", "soon"),
        ("PrometheusRule/shop-event-processor", "spec.groups.0.rules.0.labels", ["severity"]),
    ],
)
def test_operators_refuse(where: str, path: str, value: Any) -> None:
    changed = _one_spoiled("everything", where, path, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, _operators_schema(changed))
