"""What helm makes of the chart, seen as a whole: everything is there, fits together and runs what exists.

Promises as in test_chart_pods.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest
import yaml
from celery.app.utils import find_app
from celery.bin.celery import celery
from django.core.management import CommandError, get_commands, load_command_class

from devtools.localstack import PLAN
from devtools.testing.chart import (
    CHART,
    VALUES,
    Manifest,
    Promise,
    containers,
    environment_of,
    of,
    pods,
    render,
    spoiled,
)

NAMES = list(VALUES)
Manifests = Sequence[Manifest]


def has_every_process(manifests: Manifests) -> Iterator[str]:
    names = {name for name, _ in of(manifests, "Deployment")}
    if names - {"relay"} != set(PLAN.names) - {"relay"}:
        yield f"deployed: {sorted(names)}"


def keeps_one_while_nodes_are_drained(manifests: Manifests) -> Iterator[str]:
    budgets = {
        name: each["spec"]["selector"]["matchLabels"]
        for name, each in of(manifests, "PodDisruptionBudget")
    }
    for name, deployment in of(manifests, "Deployment"):
        if name == "beat":
            continue  # one of it is enough, and it is soon elsewhere
        if budgets.pop(name, None) != deployment["spec"]["selector"]["matchLabels"]:
            yield f"{name} has no budget"
    yield from (f"the budget {name} selects no pod" for name in budgets)


def prepares_first(manifests: Manifests) -> Iterator[str]:
    [(_, job)] = of(manifests, "Job")
    notes = job["metadata"]["annotations"]
    if notes["helm.sh/hook"] != "pre-install,pre-upgrade":
        yield f"prepares at {notes['helm.sh/hook']}"
    if notes["helm.sh/hook-delete-policy"] != "before-hook-creation":
        yield "the log of a failed preparation is thrown away"
    pod = job["spec"]["template"]["spec"]
    if pod["restartPolicy"] != "Never" or not job["spec"].get("activeDeadlineSeconds"):
        yield "may try for ever"
    accounts = {
        each["metadata"]["name"]: each["metadata"]["annotations"]
        for _, each in of(manifests, "ServiceAccount")
        if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }
    account = accounts.get(pod["serviceAccountName"])
    if account is None or int(account["helm.sh/hook-weight"]) >= int(notes["helm.sh/hook-weight"]):
        yield "needs an account that is not there yet"
    if any("configMap" in volume for volume in pod["volumes"]):
        yield "needs a ConfigMap that is not there yet"


def _selected(manifests: Manifests, labels: dict[str, str]) -> set[str]:
    """Names of the processes whose pods have these labels."""
    given = {name: pod["metadata"]["labels"] for name, pod in pods(manifests)}
    return {name for name, has in given.items() if labels.items() <= has.items()}


def _background(manifests: Manifests) -> set[str]:
    return {name for name, _ in of(manifests, "Deployment")} - {"web"}


def serves_by_the_right_names(manifests: Manifests) -> Iterator[str]:
    services = dict(of(manifests, "Service"))
    wanted = {"web": {"web"}, "ops": {"web"}, "metrics": _background(manifests)}
    for name, processes in wanted.items():
        if (found := _selected(manifests, services[name]["spec"]["selector"])) != processes:
            yield f"Service {name} is of {found}"
    if not services["ops"]["spec"].get("publishNotReadyAddresses"):
        yield "the page of operators is away while PostgreSQL is"
    for _, ingress in of(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]["name"]
            if backend != "shop-event-processor-web":
                yield f"requests go to {backend}"


def lets_in_what_is_asked_for(manifests: Manifests) -> Iterator[str]:
    wanted = {
        "servers": {name for name, _ in pods(manifests)},
        "requests": {"web"},
        "metrics": _background(manifests),
    }
    found = dict(of(manifests, "NetworkPolicy"))
    if found and found.keys() != wanted.keys():
        yield f"policies: {sorted(found)}"
    for name, policy in found.items():
        if _selected(manifests, policy["spec"]["podSelector"]["matchLabels"]) != wanted[name]:
            yield f"policy {name} is of others"
        if ("Egress" in policy["spec"]["policyTypes"]) != (name == "servers"):
            yield f"policy {name} is of {policy['spec']['policyTypes']}"


def scrapes_every_process(manifests: Manifests) -> Iterator[str]:
    services = dict(of(manifests, "Service"))
    for _, monitor in of(manifests, "ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"].items()
        found = {n for n, each in services.items() if labels <= each["metadata"]["labels"].items()}
        ports = {port["name"] for name in found for port in services[name]["spec"]["ports"]}
        if found != {"ops", "metrics"}:
            yield f"scraped: {found}"
        if ports != {each["port"] for each in monitor["spec"]["endpoints"]}:
            yield f"ports scraped: {monitor['spec']['endpoints']}"


def scales_each_once(manifests: Manifests) -> Iterator[str]:
    scaled: dict[str, list[str]] = {}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for name, each in of(manifests, kind):
            scaled.setdefault(name, []).append(kind)
            if (target := each["spec"]["scaleTargetRef"]["name"]) != each["metadata"]["name"]:
                yield f"{name} scales {target}"
    for name, deployment in of(manifests, "Deployment"):
        by = scaled.pop(name, [])
        if "replicas" in deployment["spec"]:
            by = [*by, "itself"]
        if len(by) != 1:
            yield f"{name} is scaled by {by}"
    yield from (f"{name} is scaled and not there" for name in scaled)


def scales_web_as_agreed(manifests: Manifests) -> Iterator[str]:
    for name, scaler in of(manifests, "HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        [metric] = spec["metrics"]
        if metric["resource"]["target"] != {"type": "Utilization", "averageUtilization": 80}:
            yield f"{name} is scaled at {metric}"
        if name == "web" and (spec["minReplicas"], spec["maxReplicas"]) != (2, 10):
            yield f"web: {spec['minReplicas']} to {spec['maxReplicas']}"
    for name, deployment in of(manifests, "Deployment"):
        if name == "web" and deployment["spec"].get("replicas", 2) != 2:
            yield f"web: {deployment['spec']['replicas']}"


def alarms_by_the_rules(manifests: Manifests) -> Iterator[str]:
    """All of docker/prometheus/alerts.yml; the relay's only where there is one."""
    groups = yaml.safe_load((CHART / "files" / "alerts.yml").read_text())["groups"]
    relay = any(name == "relay" for name, _ in of(manifests, "Deployment"))
    for _, rule in of(manifests, "PrometheusRule"):
        if rule["spec"]["groups"] != [each for each in groups if relay or each["name"] != "relay"]:
            yield "the rules are others"


def runs_commands_that_exist(manifests: Manifests) -> Iterator[str]:
    for name, container in containers(manifests):
        try:
            _check_command(container["command"])
        except (CommandError, LookupError, ImportError, AttributeError, click.UsageError) as error:
            yield f"{name} runs {shlex.join(container['command'])}: {error}"


def _check_command(words: Sequence[str]) -> None:
    """Raises what the program itself would refuse the command line with."""
    match words:
        case ["python", "manage.py", name, *options]:
            command = load_command_class(get_commands()[name], name)
            command.create_parser("manage.py", name).parse_args(options)
        case ["celery", "-q", "-A", app, name, *options]:
            find_app(app)
            parser = celery.commands[name]
            parser.make_parser(click.Context(parser)).parse_args(list(options))
        case _:
            raise LookupError("no program of ours")


PROMISES: list[Promise] = [
    has_every_process,
    keeps_one_while_nodes_are_drained,
    prepares_first,
    serves_by_the_right_names,
    lets_in_what_is_asked_for,
    scrapes_every_process,
    scales_each_once,
    scales_web_as_agreed,
    alarms_by_the_rules,
    runs_commands_that_exist,
]

POD = "spec.template.spec"
FIRST = f"{POD}.containers.0"
# Promise, kind and name of what is spoiled, where, and with what; None: it is taken away.
SPOILED: list[tuple[Promise, str, str, Any]] = [
    (has_every_process, "Deployment/beat", "metadata.name", "shop-event-processor-bead"),
    (keeps_one_while_nodes_are_drained, "PodDisruptionBudget/web", "spec.selector.matchLabels", {}),
    (keeps_one_while_nodes_are_drained, "PodDisruptionBudget/relay", "kind", "Pod"),
    (prepares_first, "Job/prepare", "metadata.annotations", {
        "helm.sh/hook": "post-upgrade", "helm.sh/hook-weight": "0",
        "helm.sh/hook-delete-policy": "before-hook-creation"}),
    (prepares_first, "Job/prepare", f"{POD}.serviceAccountName", "shop-event-processor"),
    (prepares_first, "Job/prepare", f"{POD}.restartPolicy", "OnFailure"),
    (serves_by_the_right_names, "Service/web", "spec.selector", {}),
    (serves_by_the_right_names, "Service/ops", "spec.publishNotReadyAddresses", False),
    (lets_in_what_is_asked_for, "NetworkPolicy/servers", "spec.podSelector.matchLabels.a", "b"),
    (lets_in_what_is_asked_for, "NetworkPolicy/requests", "kind", "Pod"),
    (scrapes_every_process, "ServiceMonitor/shop-event-processor", "spec.endpoints.0.port", "https"),
    (serves_by_the_right_names, "Ingress/web", "spec.rules.0.http.paths.0.backend.service.name", "web"),
    (scales_each_once, "Deployment/web", "spec.replicas", 3),
    (scales_each_once, "ScaledObject/worker-effects", "spec.scaleTargetRef.name", "worker-effects"),
    (scales_web_as_agreed, "HorizontalPodAutoscaler/web", "spec.maxReplicas", 100),
    (scales_web_as_agreed, "HorizontalPodAutoscaler/web", "spec.metrics.0.resource.target.averageUtilization", 8),
    (alarms_by_the_rules, "PrometheusRule/shop-event-processor", "spec.groups.0.rules", []),
    (runs_commands_that_exist, "Deployment/worker-effects", f"{FIRST}.command.3", "effect"),
    (runs_commands_that_exist, "Deployment/beat", f"{FIRST}.command.0", "sh"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise_is_kept(promise: Promise, name: str) -> None:
    assert list(promise(render(name))) == []


@pytest.mark.parametrize(
    ("promise", "where", "path", "value"),
    SPOILED,
    ids=[f"{promise.__name__}-{where}-{path}" for promise, where, path, _ in SPOILED],
)
def test_promise_can_break(promise: Promise, where: str, path: str, value: Any) -> None:
    assert list(promise(spoiled(render("everything"), where, path, value)))


def test_every_promise_is_shown_to_break() -> None:
    assert {promise for promise, *_ in SPOILED} == set(PROMISES)


def test_switches_are_seen() -> None:
    """What a switch brings is there with it and away without it."""

    def kinds(name: str) -> set[str]:
        return {each["kind"] for each in render(name)}

    brought = {"ScaledObject", "Ingress", "ServiceMonitor", "PrometheusRule"}
    assert brought <= kinds("everything")
    assert not brought & kinds("as it comes")
    assert "ScaledObject" in kinds("keda")
    assert {"NetworkPolicy", "HorizontalPodAutoscaler"} <= kinds("as it comes")
    assert not {"NetworkPolicy", "HorizontalPodAutoscaler"} & kinds("nothing")
    assert any("initContainers" in pod["spec"] for _, pod in pods(render("as it comes")))
    assert not any("initContainers" in pod["spec"] for _, pod in pods(render("nothing")))
    names = {name for name, _ in of(render("everything"), "Deployment")}
    assert names == set(PLAN.names)
    assert "relay" not in {name for name, _ in of(render("as it comes"), "Deployment")}
    web = dict(of(render("everything"), "Deployment"))["web"]["spec"]["template"]["spec"]
    environment = environment_of(web["containers"][0])
    assert environment["FEED_WINDOW"] == "500"
    assert "KAFKA_GROUP_PROTOCOL" not in environment
    assert environment["KAFKA_SASL_PASSWORD"]["secretKeyRef"]["name"] == "kafka"
