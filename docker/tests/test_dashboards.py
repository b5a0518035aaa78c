"""Grafana's dashboards: what the code makes, about metrics that exist, with every metric on one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.dashboards.files import DASHBOARDS, FOLDER, texts
from devtools.testing.series import (
    asked_by_dashboards,
    metrics_of_ours,
    names_in,
    names_of_ours,
    selectors_in,
)

PROVISIONING = Path(__file__).resolve().parents[1] / "grafana" / "provisioning"
# What Prometheus says of itself and its targets, and what RabbitMQ says of itself.
OF_OTHERS = ("up", "scrape_", "prometheus_", "rabbitmq_")
ASKED = list(asked_by_dashboards())
IN_PROMQL = [asked for asked in ASKED if asked.language == "promql"]


def files() -> dict[str, dict[str, Any]]:
    return {file.name: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}


def test_the_files_are_what_the_code_makes() -> None:
    """After a change: `make dashboards`."""
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == texts()


def test_there_is_one_for_each_app_and_for_what_they_share() -> None:
    assert {"orders", "feeds", "notifications", "analytics", "relay"} < DASHBOARDS.keys()
    assert {"business", "pipeline", "servers"} < DASHBOARDS.keys()


def test_panels_ask_for_metrics_that_exist() -> None:
    ours = names_of_ours()
    assert IN_PROMQL
    for asked in IN_PROMQL:
        names = names_in(asked.query)
        assert names, asked
        assert {name for name in names if not name.startswith(OF_OTHERS)} <= ours, asked


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    shown = {name for asked in IN_PROMQL for name in names_in(asked.query)}
    families = metrics_of_ours()
    assert len(families) > 80
    parts = ("", "_total", "_bucket")
    assert {name for name in families if not shown & {f"{name}{part}" for part in parts}} == set()


@pytest.mark.parametrize(
    ("query", "selectors"),
    [
        (
            'sum by (le, path) (rate(a_bucket{path=~"x.*"}[$__rate_interval]))',
            {'a_bucket{path=~"x.*"}'},
        ),
        ("histogram_quantile(0.99, sum by (le) (rate(b_bucket[5m])))", {"b_bucket"}),
        ("time() - max(c_seconds) > 60 or absent(d_seconds)", {"c_seconds", "d_seconds"}),
        ('e{job="x"} / on (path) group_left () f unless vector(0) > 1e-9', {'e{job="x"}', "f"}),
        ("deriv(max(g_events)[10m:30s]) > 0", {"g_events"}),
    ],
)
def test_what_a_query_selects_is_found(query: str, selectors: set[str]) -> None:
    assert selectors_in(query) == selectors


def test_panels_are_told_apart_and_stay_on_the_page() -> None:
    for name, dashboard in files().items():
        panels = dashboard["panels"]
        assert dashboard["uid"] == f"event-processor-{name.removesuffix('.json')}"
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len({panel["title"] for panel in panels}) == len(panels), name
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references)


def test_their_data_sources_are_provisioned() -> None:
    declared = yaml.safe_load((PROVISIONING / "datasources" / "datasources.yaml").read_text())
    known = {(source["type"], source["uid"]) for source in declared["datasources"]}
    for dashboard in files().values():
        for panel in dashboard["panels"]:
            assert (panel["datasource"]["type"], panel["datasource"]["uid"]) in known


def test_grafana_is_told_where_they_are() -> None:
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "dashboards.yaml").read_text())[
        "providers"
    ]
    watch = yaml.safe_load((PROVISIONING.parents[1] / "watch.yaml").read_text())
    grafana = watch["services"]["grafana"]
    mounted = dict(mount.split(":")[:2] for mount in grafana["volumes"])
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    targets = {config["source"]: config["target"] for config in grafana["configs"]}
    assert targets["grafana-dashboards"].startswith("/etc/grafana/provisioning/dashboards/")
