"""The pods that helm makes of the chart: what they may, what they are asked, whom they wait for.

A promise is a function that returns what breaks it, as in docker/tests. Each is held against every set of
values, and is shown to break on a manifest that is spoiled in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from devtools.testing.chart import (
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
WAITS = {"web", "bridge", "beat"}
SHORTEST_GRACE_SECONDS = 15  # every process ends within ten
SECRET = {
    "DJANGO_SECRET_KEY", "DATABASE_URL", "REDIS_URL", "PROVIDERS", "ADMIN_PASSWORD", "OPS_TOKEN",
    "KAFKA_SASL_PASSWORD", "RABBITMQ_URL",
}  # fmt: skip
KEPT_TO = {
    "DATABASE_URL": {"web", "worker", "beat", "bridge", "prepare"},
    "ADMIN_PASSWORD": {"prepare"},
    "OPS_TOKEN": {"web"},
    "RABBITMQ_URL": {"relay", "web", "worker"},
}

Manifests = Sequence[Manifest]


def runs_without_rights(manifests: Manifests) -> Iterator[str]:
    for name, pod in pods(manifests):
        context = pod["spec"]["securityContext"]
        if not context.get("runAsNonRoot") or context.get("runAsUser") != 10001:
            yield f"{name} runs as {context.get('runAsUser')}"
        if context["seccompProfile"]["type"] != "RuntimeDefault":
            yield f"{name} may make any call to the kernel"
        if pod["spec"].get("automountServiceAccountToken") is not False:
            yield f"{name} may speak to Kubernetes"
        if any(key in pod["spec"] for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name} is on the node"
        if pod["spec"].get("enableServiceLinks") is not False:
            yield f"{name} takes Services for settings"


def gains_no_rights(manifests: Manifests) -> Iterator[str]:
    for name, container in containers(manifests):
        context = container["securityContext"]
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may gain rights"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name} may write its image"


def writes_to_memory_alone(manifests: Manifests) -> Iterator[str]:
    for name, container in containers(manifests):
        writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
        if writable != ["/tmp"]:
            yield f"{name} writes to {writable}"
    for name, pod in pods(manifests):
        [tmp] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "tmp"]
        if tmp.get("emptyDir", {}).get("medium") != "Memory" or "sizeLimit" not in tmp["emptyDir"]:
            yield f"{name} has no bounded /tmp in memory"


def is_bounded_in_memory(manifests: Manifests) -> Iterator[str]:
    for name, container in containers(manifests):
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            yield f"{name} asks for nothing"
        if "memory" not in resources.get("limits", {}):
            yield f"{name} has no bound of its memory"


def tells_its_health(manifests: Manifests) -> Iterator[str]:
    paths = {
        "startupProbe": "/health",
        "livenessProbe": "/health",
        "readinessProbe": "/health/ready",
    }
    for name, deployment in of(manifests, "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        [port] = container["ports"]
        served = environment_of(container).get("METRICS_PORT")
        if port["containerPort"] != (8080 if name == "web" else 9100):
            yield f"{name} serves {port}"
        if served != (None if name == "web" else "9100"):
            yield f"{name} serves its metrics on {served}"
        for probe, path in paths.items():
            asked = container.get(probe, {}).get("httpGet")
            if asked != {"path": path, "port": port["containerPort"]}:
                yield f"{probe} of {name} asks {asked}"


def stops_in_peace(manifests: Manifests) -> Iterator[str]:
    for name, pod in pods(manifests):
        if pod["spec"]["terminationGracePeriodSeconds"] < SHORTEST_GRACE_SECONDS:
            yield f"{name} is killed while it stops"
        if pod["spec"].get("shareProcessNamespace") is not True:
            yield f"{name} is the first process of its container, which gets no SIGTERM by default"
    for name, deployment in of(manifests, "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        if ("preStop" in container.get("lifecycle", {})) != (name == "web"):
            yield f"{name} does not wait until no more requests come"
        strategy = deployment["spec"]["strategy"]["rollingUpdate"]
        if strategy != {"maxUnavailable": 0, "maxSurge": 1}:
            yield f"{name} is replaced by {strategy}"


def is_spread(manifests: Manifests) -> Iterator[str]:
    for name, deployment in of(manifests, "Deployment"):
        spread = deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
        keys = {each["topologyKey"] for each in spread}
        if keys != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"{name} is spread over {keys}"
        for each in spread:
            if each["labelSelector"] != deployment["spec"]["selector"]:
                yield f"{name} is spread by the labels of others"


def waits_for_its_version(manifests: Manifests) -> Iterator[str]:
    for name, deployment in of(manifests, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        waiting = [
            each["command"][3] for each in pod.get("initContainers", []) if "await_version" in each["command"]
        ]  # fmt: skip
        if waiting and waiting != [name]:
            yield f"{name} waits as {waiting}"
        if bool(waiting) != (name in WAITS and _waits(manifests)):
            yield f"{name} waits: {waiting}"
        for each in pod.get("initContainers", []):
            if environment_of(each) != environment_of(container):
                yield f"{name} waits for another version, or at another Redis"
        build = environment_of(container)["BUILD"]
        if not build or not container["image"].endswith(build):
            yield f"{name} calls itself {build} and is {container['image']}"


def _waits(manifests: Manifests) -> bool:
    """Whether the switch is on: somebody waits."""
    return any("initContainers" in pod["spec"] for _, pod in pods(manifests))


def has_secrets_by_reference(manifests: Manifests) -> Iterator[str]:
    yield from (f"Secret {name} is in the chart" for name, _ in of(manifests, "Secret"))
    for name, container in containers(manifests):
        for variable, value in environment_of(container).items():
            if isinstance(value, dict) != (variable in SECRET):
                yield f"{name} has {variable} as {value}"
    for name, pod in pods(manifests):
        given = environment_of(pod["spec"]["containers"][0])
        for variable, processes in KEPT_TO.items():
            if (variable in given) != (name.partition("-")[0] in processes):
                yield f"{name} has {variable}: {variable in given}"


PROMISES: list[Promise] = [
    runs_without_rights,
    gains_no_rights,
    writes_to_memory_alone,
    is_bounded_in_memory,
    tells_its_health,
    stops_in_peace,
    is_spread,
    waits_for_its_version,
    has_secrets_by_reference,
]

POD = "spec.template.spec"
FIRST = f"{POD}.containers.0"
# Promise, kind and name of what is spoiled, where, and with what; None: it is taken away.
SPOILED: list[tuple[Promise, str, str, Any]] = [
    (runs_without_rights, "Deployment/web", f"{POD}.securityContext.runAsNonRoot", False),
    (runs_without_rights, "Deployment/web", f"{POD}.securityContext.seccompProfile.type", "Unconfined"),
    (runs_without_rights, "Job/prepare", f"{POD}.automountServiceAccountToken", None),
    (runs_without_rights, "Deployment/beat", f"{POD}.hostNetwork", True),
    (runs_without_rights, "Deployment/beat", f"{POD}.enableServiceLinks", None),
    (gains_no_rights, "Deployment/bridge", f"{FIRST}.securityContext.readOnlyRootFilesystem", False),
    (gains_no_rights, "Deployment/bridge", f"{FIRST}.securityContext.capabilities.add", ["SYS_ADMIN"]),
    (gains_no_rights, "Deployment/web", f"{POD}.initContainers.0.securityContext.allowPrivilegeEscalation", True),
    (writes_to_memory_alone, "Deployment/relay", f"{FIRST}.volumeMounts.1.readOnly", False),
    (writes_to_memory_alone, "Deployment/relay", f"{POD}.volumes.0.emptyDir", {}),
    (is_bounded_in_memory, "Deployment/beat", f"{FIRST}.resources.limits", {}),
    (is_bounded_in_memory, "Job/prepare", f"{FIRST}.resources", {}),
    (tells_its_health, "Deployment/relay", f"{FIRST}.readinessProbe.httpGet.path", "/health"),
    (tells_its_health, "Deployment/web", f"{FIRST}.livenessProbe", None),
    (tells_its_health, "Deployment/worker-outbox", f"{FIRST}.ports.0.containerPort", 9101),
    (stops_in_peace, "Deployment/bridge", f"{POD}.terminationGracePeriodSeconds", 5),
    (stops_in_peace, "Job/prepare", f"{POD}.shareProcessNamespace", None),
    (stops_in_peace, "Deployment/web", f"{FIRST}.lifecycle", {}),
    (stops_in_peace, "Deployment/web", "spec.strategy.rollingUpdate.maxUnavailable", 1),
    (is_spread, "Deployment/web", f"{POD}.topologySpreadConstraints", []),
    (is_spread, "Deployment/web", f"{POD}.topologySpreadConstraints.0.labelSelector", {}),
    (waits_for_its_version, "Deployment/web", f"{POD}.initContainers", []),
    (waits_for_its_version, "Deployment/bridge", f"{POD}.initContainers.0.command.3", "web"),
    (waits_for_its_version, "Deployment/bridge", f"{POD}.initContainers.0.env", []),
    (waits_for_its_version, "Deployment/web", f"{FIRST}.image", "event-processor:other"),
    (has_secrets_by_reference, "Deployment/web", f"{FIRST}.env.0", {"name": "ADMIN_PASSWORD", "value": "a"}),
    (has_secrets_by_reference, "Service/web", "kind", "Secret"),
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
