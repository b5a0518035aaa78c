"""`make test` on a machine that has Python and make alone: what it cannot try it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from devtools.testing.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
NEEDY = (
    "docker/tests/test_alerts.py",
    *(str(file.relative_to(ROOT)) for file in sorted(ROOT.glob("*/tests/test_*_in_chromium.py"))),
)
REPORT = re.compile(r"(?:SKIPPED|FAILED|ERROR) .*")


def run(*given: str) -> subprocess.CompletedProcess[str]:
    """Tests that need programs, as `make test` runs them, where PATH holds nothing."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given],
        cwd=ROOT,
        env={**others, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_what_is_not_installed_is_skipped_with_what_to_install() -> None:
    done = run(*NEEDY)
    assert done.returncode == 0, done.stdout
    summary = REPORT.findall(done.stdout)
    assert summary
    for line in summary:
        assert line.startswith("SKIPPED")
    for sentence in ("apt-get install chromium", "apt-get install prometheus"):
        assert any(sentence in line for line in summary), done.stdout


def test_where_everything_is_installed_a_skip_is_refused() -> None:
    done = run("--fail-on-skip", "eventsite/tests/test_home_in_chromium.py")
    assert done.returncode == 1
    assert "SKIPPED" not in done.stdout
    assert "apt-get install chromium" in done.stdout


def test_what_lands_a_change_installs_it_and_refuses_skips() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    for program, package in {
        "java": "openjdk-17-jre-headless",
        "mvn": "maven",
        "promtool": "prometheus",
        "chromium": "chromium",
    }.items():
        assert f"command -v {program} >/dev/null || missing+=({package})" in script
    runs = re.findall(r"make test.*", script)
    assert runs
    for line in runs:
        assert "--fail-on-skip" in line
