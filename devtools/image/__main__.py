"""`make image-size`: how large what goes into the image is. Exit code 1 above 150 MB."""

from __future__ import annotations

import sys

from devtools.image.size import MOST_BYTES, size_of_image


def main() -> int:
    """0, or 1: it is too large, or not all of the lock is installed here."""
    size = size_of_image()
    print(  # noqa: T201
        f"{size.total / 1e6:.1f} MB go into the image beside Python, of {MOST_BYTES / 1e6:.0f}:"
        f" {len(size.packages)} packages of the lock {(size.total - size.tree) / 1e6:.1f},"
        f" the tree {size.tree / 1e6:.1f}; without bytecode.\nThe largest: {size.largest}."
    )
    if size.absent:
        print(f"Not installed here: {', '.join(size.absent)}.", file=sys.stderr)  # noqa: T201
    return int(bool(size.absent) or size.total > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
