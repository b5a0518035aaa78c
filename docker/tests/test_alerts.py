"""The alert rules: valid, tested by promtool, about metrics that exist, and explained to operators."""

from __future__ import annotations

import re
import shutil
import subprocess
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
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}
ALARMS: dict[str, Alarm] = {alarm.name: alarm for alarm in settings.WIRING.alarms}
# Rules of which the page of operators knows nothing: no heartbeat has their counters.
OF_COUNTERS = {
    *("FloorUndercut", "ConsumerStalls", "FeedNodesNotHeld", "StatusFeedUnread", "StatusFeedLag"),
    *("WebSocketsFail", "WebSocketsCutOff", "WebSocketsBreak", "WebSocketsReconnect"),
    *("NotificationsFail", "NotificationsExpire", "LateSends", "PacedWithoutRedis"),
    *("DatabaseSilent", "RateLimitOpen"),
    # It judges the age of its own readings instead (operations/judge.py).
    "MeasuresStandStill",
}
SECONDS = {"s": 1, "m": 60, "h": 3600}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    return promtool("test", "rules", str(folder / "alerts_test.yml"))


@needs_promtool
def test_the_rules_pass_their_tests() -> None:
    assert promtool("check", "rules", str(FOLDER / "alerts.yml")).returncode == 0
    result = run_tests(FOLDER)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
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
    assert ALARMS.keys() | OF_COUNTERS == RULES.keys()
    assert not ALARMS.keys() & OF_COUNTERS


def test_every_rule_is_explained_to_the_operator() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(RULES)
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
