"""The alert rules: valid, tested by promtool, about metrics that exist, and explained to operators."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from eventsite.gateway import metrics as gateway_metrics
from outbox import metrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "prometheus"
GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Debian's package prometheus brings it: apt-get install -y prometheus."""
    program = shutil.which("promtool")
    assert program, promtool.__doc__
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    return promtool("test", "rules", str(folder / "alerts_test.yml"))


def test_the_rules_pass_their_tests() -> None:
    assert promtool("check", "rules", str(FOLDER / "alerts.yml")).returncode == 0
    result = run_tests(FOLDER)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("expression", "wanted"), [("vector(1) > 0", "quiet"), ("vector(0) > 1", "fires")]
)
def test_rules_that_always_or_never_fire_fail_their_tests(
    tmp_path: Path, expression: str, wanted: str
) -> None:
    """Each rule has a test of when it is quiet and one of when it fires."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())
    tests["tests"] = [test for test in tests["tests"] if wanted in test["name"]]
    (tmp_path / "alerts_test.yml").write_text(yaml.safe_dump(tests))
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule["expr"] = expression
        rule.pop("for", None)
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    result = run_tests(tmp_path)
    assert result.returncode == 1
    failed = set(re.findall(r"alertname: (\w+)", result.stdout + result.stderr))
    assert failed == set(RULES)


def test_the_rules_ask_for_metrics_that_exist() -> None:
    ours = {
        name
        for each in (*vars(metrics).values(), *vars(gateway_metrics).values())
        if isinstance(each, MetricWrapperBase)
        for family in each.describe()
        for name in (family.name, f"{family.name}_total")
    }
    for name, rule in RULES.items():
        words = re.sub(r"\{[^}]*\}", "", rule["expr"])
        asked = {word for word in re.findall(r"[a-z_]{8,}", words) if "_" in word}
        assert asked, name
        assert asked <= ours, name


def test_every_rule_is_explained_to_the_operator() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(RULES)
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
