"""What goes into the image beside Python: the packages of the lock, and the tree without equipment."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from devtools.benchmarks.report import BenchFigure
from devtools.localstack.state import CLONE

__all__ = ["figures_of_size", "files_of_image", "names_of_lock"]

LEFT_OUT = CLONE / ".dockerignore"
# The heads of .dockerignore that are folders or files of the root; `tests` may lie anywhere.
ANYWHERE = "tests"


def figures_of_size() -> list[BenchFigure]:
    """MB, as installed, without bytecode."""
    pinned = names_of_lock(CLONE / "requirements.txt")
    packages = {name: _installed(name) for name in pinned}
    found = {name: size for name, size in packages.items() if size is not None}
    tree = sum((CLONE / file).stat().st_size for file in files_of_image())
    largest = sorted(found.items(), key=lambda each: -each[1])[:5]
    note = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in largest)
    absent = sorted(name for name in packages.keys() - found.keys() if not pinned[name])
    return [
        BenchFigure(
            name="packages of the lock and the tree",
            value=(sum(found.values()) + tree) / 1e6,
            unit="MB",
            at_most=150,
            note=f"{len(found)} packages, tree {tree / 1e6:.1f}; largest: {note}"
            + (f"; not installed here: {', '.join(absent)}" if absent else ""),
        )
    ]


def names_of_lock(lock: Path) -> dict[str, bool]:
    """The packages that a lock pins; whether under a condition, as those for Windows."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==\S+ *(;?)", lock.read_text(), re.M)
    return {name: bool(condition) for name, condition in lines}


def _installed(name: str) -> int | None:
    try:
        files = distribution(name).files or ()
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if "__pycache__" not in file.parts)
    return sum(path.stat().st_size for path in paths if path.is_file())


def files_of_image() -> list[str]:
    """Files under version control that .dockerignore lets through."""
    answer = subprocess.run(  # noqa: S603  (our own command)
        ["git", "-C", str(CLONE), "ls-files"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    lines = LEFT_OUT.read_text().splitlines()
    heads = {line for line in lines if line and not line.startswith(("#", "!", "*", "."))}
    heads = {line.removesuffix("/*") for line in heads}
    return [
        file
        for file in answer.stdout.splitlines()
        if (parts := Path(file).parts)
        and parts[0] not in heads
        and not parts[0].startswith(".")
        and ANYWHERE not in parts
        and (CLONE / file).is_file()
    ]
