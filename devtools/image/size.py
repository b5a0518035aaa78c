"""How large what goes into the image beside Python is: the packages of the lock, and the tree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from devtools.image.files import files_of_image
from devtools.localstack.state import CLONE

__all__ = ["MOST_BYTES", "Size", "size_of_image"]

MOST_BYTES = 150_000_000
LARGEST = 5  # that are named


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes as installed, without bytecode.

    packages  name -> its files
    tree      the files of ours
    absent    packages of the lock that are not installed here, so not counted
    """

    packages: dict[str, int]
    tree: int
    absent: tuple[str, ...]

    @property
    def total(self) -> int:
        """Of packages and tree."""
        return sum(self.packages.values()) + self.tree

    @property
    def largest(self) -> str:
        """The largest packages in words."""
        ordered = sorted(self.packages.items(), key=lambda each: -each[1])[:LARGEST]
        return ", ".join(f"{name} {size / 1e6:.1f}" for name, size in ordered)


def size_of_image() -> Size:
    """Of what is installed here, by the names of requirements.txt."""
    pinned = names_of_lock(CLONE / "requirements.txt")
    sizes = {name: _installed(name) for name in pinned}
    return Size(
        packages={name: size for name, size in sizes.items() if size is not None},
        tree=sum((CLONE / file).stat().st_size for file in files_of_image()),
        absent=tuple(name for name, size in sizes.items() if size is None and not pinned[name]),
    )


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
