"""The next run deletes what a run left of which even the warden was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from devtools.localstack import state as state_module
from devtools.localstack.logins import private_folder
from devtools.localstack.record import Identity
from devtools.localstack.state import OWNER, StackState, ephemeral_state


def dead() -> Identity:
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    identity = Identity.of(child.pid)
    child.communicate()
    return identity


def test_in_the_clone_and_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, clone = tmp_path / "tmp", tmp_path / "clone"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(state_module, "clone_state", lambda: StackState(clone))
    gone, alive = dead(), Identity.of(os.getpid())
    temporary.mkdir()
    kept: list[Path] = []
    abandoned: list[Path] = []
    for base, prefix in ((clone, "run-"), (temporary, "eventsite-run-")):
        for owner, found in ((gone, abandoned), (alive, kept)):
            root = base / f"{prefix}{owner.pid}-x"
            root.mkdir(parents=True)
            owner.write(root / OWNER)
            folder = private_folder(root / "postgres")
            folder.mkdir()
            found += [root, folder]
    new = ephemeral_state()
    assert new.root.parent == clone
    assert [path for path in abandoned if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
