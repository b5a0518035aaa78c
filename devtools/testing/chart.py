"""What helm makes of deploy/helm/event-processor, and the tools that its tests run."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = [
    "CHART",
    "TOOLS",
    "VALUES",
    "Manifest",
    "Promise",
    "containers",
    "environment_of",
    "helm",
    "merged",
    "of",
    "pods",
    "render",
    "spoiled",
    "tool",
]

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "event-processor"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
# The folder of deploy/install-tools.
TOOLS = Path(os.environ.get("DEPLOY_TOOLS") or CACHE / "event-processor")

Manifest = dict[str, Any]
# Returns what breaks it.
Promise = Callable[[Sequence[Manifest]], Iterable[str]]

# What every install must say.
REQUIRED: Manifest = {
    "config": {"ALLOWED_HOSTS": "shop.example.org", "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"},
}
# Every switch of the chart stands both ways in one of them.
VALUES: dict[str, Manifest] = {
    "as it comes": {},
    "keda": {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}},
    "everything": {
        "image": {"digest": "sha256:" + "0123456789abcdef" * 4, "pullSecrets": ["pull"]},
        "config": {"FEED_WINDOW": 500, "KAFKA_GROUP_PROTOCOL": None},
        "secrets": {"KAFKA_SASL_PASSWORD": {"name": "kafka", "key": "password"}},
        "filesSecret": "files",
        "keda": {
            "enabled": True,
            "prometheusAddress": "http://prometheus:9090",
            "authenticationRef": "prometheus",
        },
        "relay": {"enabled": True},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"a": "b"},
            "hosts": [{"host": "shop.example.org", "tlsSecret": "shop-tls"}],
        },
        "networkPolicy": {
            "webFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "egressTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        },
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        },
        "serviceAccount": {"annotations": {"a": "b"}},
        "service": {"annotations": {"a": "b"}},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "priorityClassName": "high",
    },
    "nothing": {
        "web": {"autoscaling": {"enabled": False}},
        "workersAutoscaling": {"enabled": False},
        "awaitVersion": {"enabled": False},
        "serviceAccount": {"create": False},
        "networkPolicy": {"enabled": False},
        "monitoring": {"rules": {"enabled": True}},
    },
}


def merged(below: Any, above: Any) -> Any:
    """As helm merges values."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    shared = {key: merged(below[key], above[key]) for key in below.keys() & above.keys()}
    return below | above | shared


def tool(name: str) -> str:
    """Its path. Skips the test where it is not there."""
    path = shutil.which(name) or shutil.which(name, path=TOOLS / "bin")
    if path is None:
        pytest.skip(f"{name} is not installed: deploy/install-tools builds it")
    return path


def helm(
    *arguments: str, values: Manifest, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart with these values and what every install must say."""
    path = tool("helm")
    with tempfile.TemporaryDirectory(prefix="eventsite-helm-") as home:
        file = Path(home, "values.yaml")
        file.write_text(yaml.safe_dump(merged(REQUIRED, values)))
        return subprocess.run(
            # A helm that was built by `go install` takes itself for one of an old Kubernetes.
            [path, *arguments, str(chart), "--values", str(file), "--kube-version", "1.32.0"],
            # Nothing of whoever runs this: no plugins, no cluster.
            env={"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )


@cache
def render(name: str) -> tuple[Manifest, ...]:
    """The manifests that come of one of VALUES, for reading. AssertionError with helm's words."""
    told = helm("template", "shop", "--namespace", "shops", values=VALUES[name])
    assert told.returncode == 0, told.stderr
    return tuple(each for each in yaml.safe_load_all(told.stdout) if each)


def of(manifests: Sequence[Manifest], kind: str) -> Iterator[tuple[str, Manifest]]:
    """Name without the release's -> manifest."""
    for each in manifests:
        if each["kind"] == kind:
            yield each["metadata"]["name"].removeprefix("shop-event-processor-"), each


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for kind in ("Deployment", "Job"):
        for name, each in of(manifests, kind):
            yield name, each["spec"]["template"]


def containers(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, pod in pods(manifests):
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            yield f"{name}/{container['name']}", container


def environment_of(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def spoiled(manifests: Sequence[Manifest], where: str, path: str, value: Any) -> list[Manifest]:
    changed = copy.deepcopy(list(manifests))
    kind, _, wanted = where.partition("/")
    [target] = [each for name, each in of(changed, kind) if name == wanted]
    *parents, last = path.split(".")
    place: Any = target
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place[parent]
    if value is None:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return changed
