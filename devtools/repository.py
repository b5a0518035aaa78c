"""The files of this repository: what git knows of the clone, or without git what .gitignore leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from devtools.localstack.state import CLONE

__all__ = ["files"]


def files(*patterns: str) -> list[Path]:
    """Those of any of the patterns, which are of a file's name; all without one. New files count, ignored
    ones do not."""
    git = shutil.which("git")
    known = _by_git(git) if git and (CLONE / ".git").exists() else sorted(_by_walking())
    return [
        path
        for path in known
        if path.is_file() and (not patterns or any(fnmatch(path.name, each) for each in patterns))
    ]


def _by_git(git: str) -> list[Path]:
    known = subprocess.run(  # noqa: S603  (git, of our own clone)
        [git, "ls-files", "-co", "--exclude-standard"],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=True,
    )
    return [CLONE / name for name in known.stdout.splitlines()]


def _by_walking() -> Iterator[Path]:
    lines = (CLONE / ".gitignore").read_text().splitlines()
    ignored = [line.strip("/") for line in lines if line and not line.startswith("#")]
    ignored.append(".git")
    for folder, folders, names in os.walk(CLONE):
        here = Path(folder).relative_to(CLONE)

        def is_ignored(name: str, here: Path = here) -> bool:
            path = str(here / name)
            return any(fnmatch(name, each) or fnmatch(path, each) for each in ignored)

        folders[:] = [name for name in folders if not is_ignored(name)]
        yield from (CLONE / here / name for name in names if not is_ignored(name))
