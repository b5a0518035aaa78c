"""What an upgrade begins from, and how far it can be taken back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.localstack.errors import LocalStackError
from devtools.localstack.processes import Plan
from devtools.localstack.state import CLONE
from devtools.upgrade import release
from devtools.upgrade.release import EarlierRelease, behind, commit_to_upgrade_from, today


def with_migrations(folder: Path, names: dict[str, list[str]]) -> EarlierRelease:
    for app, migrations in names.items():
        (folder / app / "migrations").mkdir(parents=True)
        for each in ("__init__", *migrations):
            (folder / app / "migrations" / f"{each}.py").touch()
    return EarlierRelease("any", folder, Path(sys.executable), {}, Plan())


needs_git = pytest.mark.skipif(
    shutil.which("git") is None, reason="git is not installed: apt-get install git"
)


@needs_git
def test_the_file_names_a_commit_before_this_one() -> None:
    commit = commit_to_upgrade_from()
    answer = subprocess.run(
        ["git", "-C", str(CLONE), "merge-base", "--is-ancestor", commit, "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr or f"{commit} does not lie before HEAD"


@pytest.mark.parametrize("text", ["", "main", "f249657", "g" * 40])
def test_a_name_that_may_move_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = tmp_path / "UPGRADE_FROM"
    file.write_text(text)
    monkeypatch.setattr(release, "COMMIT_FILE", file)
    with pytest.raises(LocalStackError, match="one full commit hash"):
        commit_to_upgrade_from()


def test_migrations_go_back_to_what_the_old_code_knows(tmp_path: Path) -> None:
    old = with_migrations(tmp_path / "old", {"orders": ["0001_a"], "outbox": ["0001_a", "0002_b"]})
    new = with_migrations(
        tmp_path / "new",
        {"orders": ["0001_a"], "outbox": ["0001_a", "0002_b", "0003_c"], "feeds": ["0001_a"]},
    )
    assert behind(old, new) == {"outbox": "0002_b"}


def test_the_courier_goes_a_migration_back(tmp_path: Path) -> None:
    old = with_migrations(tmp_path / "old", {str(release.COURIER): ["0001_initial"]})
    assert (CLONE / release.NEWER).exists()
    assert behind(old, today()) == {"courier": "0001_initial"}


def test_today_s_side_has_every_process_but_the_relay() -> None:
    names = {spec.name for spec in today().plan.processes}
    assert names >= {"web", "worker-outbox", "worker-effects", "beat", "bridge"}
    assert "relay" not in names


@needs_git
def test_a_commit_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="git fetch --unshallow"):
        release._unpack("0" * 40, tmp_path)
