"""The files that `COPY . .` of docker/Dockerfile takes: what .dockerignore lets through."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from devtools.localstack.state import CLONE
from devtools.repository import files

__all__ = ["copy_files", "files_of_image"]

# Every file as in the image: for everybody to read and for nobody to write.
READ_ONLY_FILE, READ_ONLY_FOLDER = 0o444, 0o555


def files_of_image() -> list[str]:
    """Paths from the root, of the files of the clone. The last pattern that matches wins."""
    lines = (CLONE / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    known = [str(path.relative_to(CLONE)) for path in files()]
    return [path for path in known if not _is_ignored(path, patterns)]


def _is_ignored(path: str, patterns: list[str]) -> bool:
    found = False
    parents = [str(parent) for parent in (PurePosixPath(path), *PurePosixPath(path).parents)]
    for pattern in patterns:
        exception, bare = pattern.startswith("!"), pattern.removeprefix("!")
        if any(fnmatch(parent, bare) for parent in parents if parent != ".") or (
            bare.startswith("**/")
            and any(fnmatch(part, bare[3:]) for part in PurePosixPath(path).parts)
        ):
            found = not exception
    return found


def copy_files(app: Path, *, read_only: bool = False) -> None:
    """Make the image's /app in a folder that is not there yet. `read_only`: with the static files and
    the bytecode that the Dockerfile makes, and then nobody but root may write in it."""
    for name in files_of_image():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CLONE / name, app / name)
    if not read_only:
        return
    subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--noinput", "-v", "0"],
        cwd=app,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "eventsite.settings.local",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
    )
    # Without it each process in a tree that is not written to compiles all of it for itself.
    subprocess.run(
        [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "-j0",
            "--invalidation-mode=unchecked-hash",
            ".",
        ],
        cwd=app,
        check=True,
    )
    for folder, _, names in os.walk(app, topdown=False):
        for name in names:
            Path(folder, name).chmod(READ_ONLY_FILE)
        Path(folder).chmod(READ_ONLY_FOLDER)
