"""The alert rules: valid, tested by promtool, about metrics that exist, and explained to operators."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from devtools.testing.installed import needs_promtool
from devtools.testing.series import names_in, names_of_ours
from outbox.watching import Alarm

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "prometheus"
GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
TESTS = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}
ALARMS: dict[str, Alarm] = {alarm.name: alarm for alarm in settings.WIRING.alarms}
# Rules of which the page of operators knows nothing; docs/operations.md gives the reason of each.
OF_PROMETHEUS_ALONE = {
    *("ConsumerStalls", "StatusFeedLag", "WebSocketsCutOff", "WebSocketsBreak"),
    *("WebSocketsReconnect", "NotificationsFail", "PacedWithoutRedis", "MeasuresStandStill"),
}
SECONDS = {"s": 1, "m": 60, "h": 3600}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def run_tests(
    folder: Path, rules: Mapping[str, Mapping[str, Any]], *, wanted: str = ""
) -> subprocess.CompletedProcess[str]:
    """The tests of alerts_test.yml with `wanted` in their names, of these rules. Each test has a file
    with the one rule that it is about: promtool evaluates all rules of a file at each step of each
    test, and looks at one of them; that is a minute instead of seconds."""
    files = []
    for name, rule in rules.items():
        of_rule = [test for test in TESTS["tests"] if rule_of(test) == name]
        chosen = [test for test in of_rule if wanted in test["name"]]
        (folder / f"{name}.yml").write_text(
            yaml.safe_dump({"groups": [{"name": name, "rules": [dict(rule)]}]})
        )
        file = folder / f"{name}_test.yml"
        file.write_text(yaml.safe_dump(TESTS | {"rule_files": [f"{name}.yml"], "tests": chosen}))
        files.append(str(file))
    return promtool("test", "rules", *files)


def rule_of(test: Mapping[str, Any]) -> str:
    """The rule that a test is about."""
    [name] = {asked["alertname"] for asked in test["alert_rule_test"]}
    return str(name)


@needs_promtool
def test_the_rules_pass_their_tests(tmp_path: Path) -> None:
    assert promtool("check", "rules", str(FOLDER / "alerts.yml")).returncode == 0
    assert TESTS["rule_files"] == ["alerts.yml"]
    assert {rule_of(test) for test in TESTS["tests"]} == RULES.keys()
    result = run_tests(tmp_path, RULES)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_a_rule_that_says_something_else_fails_its_test(tmp_path: Path) -> None:
    """Else the test above says nothing."""
    other = RULES | {"OutboxOldestAge": RULES["OutboxOldestAge"] | {"for": "1h"}}
    result = run_tests(tmp_path, other)
    assert result.returncode == 1
    assert set(re.findall(r"alertname: (\w+)", result.stdout + result.stderr)) == {
        "OutboxOldestAge"
    }


@needs_promtool
@pytest.mark.parametrize(
    ("expression", "wanted"), [("vector(1) > 0", "quiet"), ("vector(0) > 1", "fires")]
)
def test_rules_that_always_or_never_fire_fail_their_tests(
    tmp_path: Path, expression: str, wanted: str
) -> None:
    """Each rule has a test of when it is quiet and one of when it fires."""
    rules = {
        name: {key: value for key, value in rule.items() if key != "for"} | {"expr": expression}
        for name, rule in RULES.items()
    }
    result = run_tests(tmp_path, rules, wanted=wanted)
    assert result.returncode == 1
    failed = set(re.findall(r"alertname: (\w+)", result.stdout + result.stderr))
    assert failed == set(RULES)


def test_the_rules_ask_for_metrics_that_exist() -> None:
    ours = names_of_ours()
    for name, rule in RULES.items():
        asked = names_in(rule["expr"])
        assert asked, name
        assert asked <= ours, name


@pytest.mark.parametrize("name", ALARMS)
def test_page_and_rules_have_the_same_thresholds(name: str) -> None:
    """What is red on the page of operators is an alarm, and the other way round."""
    alarm, rule = ALARMS[name], RULES[name]
    told = rule.get("for", "0s")
    assert int(told[:-1]) * SECONDS[told[-1]] == alarm.seconds
    assert (rule["labels"]["severity"] == "critical") == alarm.critical
    assert ("deriv(" in rule["expr"]) == alarm.growing
    if alarm.figure.startswith("process_up"):
        assert rule["expr"] == f"absent({alarm.figure})"
        return
    asked = f"{alarm.figure}[{alarm.rises / 60:g}m]" if alarm.rises else alarm.figure
    if alarm.rises:
        assert "increase(" in rule["expr"]
    compared = rf"{re.escape(asked)}\)* {'==' if alarm.at else '>'} {alarm.bound:g}(?![.\d])"
    assert re.search(compared, rule["expr"]), rule["expr"]
    assert (f"absent({alarm.figure})" in rule["expr"]) == alarm.absent


def test_every_rule_is_judged_by_the_page_or_named_as_one_that_is_not() -> None:
    assert ALARMS.keys() | OF_PROMETHEUS_ALONE == RULES.keys()
    assert not ALARMS.keys() & OF_PROMETHEUS_ALONE
    text = (ROOT / "docs" / "operations.md").read_text()
    [listed] = re.findall(r"^- \*\*Alarms of Prometheus alone\.\*\*.*?(?=^- )", text, re.M | re.S)
    assert set(re.findall(r"`([A-Z]\w+)`", listed)) == OF_PROMETHEUS_ALONE


def test_every_rule_is_explained_to_the_operator() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(RULES)
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
