"""The series that our code counts, and those that a query asks for."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from devtools.testing.processes import REPOSITORY

__all__ = [
    "DASHBOARDS",
    "Asked",
    "asked_by_dashboards",
    "metrics_of_ours",
    "names_in",
    "names_of_ours",
    "selectors_in",
]

DASHBOARDS = REPOSITORY / "docker" / "grafana" / "dashboards"
_EQUIPMENT = ("devtools", "loadtest")
_PARTS = ("total", "sum", "count", "bucket")
_WORDS = {"and", "or", "unless", "on", "ignoring", "bool", "offset", "group_left", "group_right"}
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_SELECTOR = re.compile(r"(?<![\w.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\w)(?!\s*\()")


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of one panel; `language` is promql or sql."""

    dashboard: str
    panel: str
    language: str
    query: str


def metrics_of_ours() -> Mapping[str, MetricWrapperBase]:
    """Every metric by its family's name: what any module `metrics` of the product declares."""
    found = (
        value
        for path in sorted(REPOSITORY.glob("[a-z]*/**/metrics.py"))
        if path.relative_to(REPOSITORY).parts[0] not in _EQUIPMENT
        for value in vars(importlib.import_module(_module(path))).values()
        if isinstance(value, MetricWrapperBase)
    )
    return {family.name: metric for metric in found for family in metric.describe()}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def names_of_ours() -> set[str]:
    """The names that these have in Prometheus."""
    return {
        name
        for family in metrics_of_ours()
        for name in (family, *(f"{family}_{part}" for part in _PARTS))
    }


def selectors_in(query: str) -> set[str]:
    """What a query of PromQL selects, labels included: `x_total{a="b"}`."""
    bare = _RANGE.sub("", _GROUPED.sub("", query))
    return {name + labels for name, labels in _SELECTOR.findall(bare) if name not in _WORDS}


def names_in(query: str) -> set[str]:
    """The names of the series alone."""
    return {selector.partition("{")[0] for selector in selectors_in(query)}


def asked_by_dashboards() -> Iterator[Asked]:
    """Every query of every dashboard's file."""
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield _asked(file.stem, panel["title"], target)


def _asked(dashboard: str, panel: str, target: Mapping[str, Any]) -> Asked:
    if "rawSql" in target:
        return Asked(dashboard, panel, "sql", target["rawSql"])
    return Asked(dashboard, panel, "promql", target["expr"])
