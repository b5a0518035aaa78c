"""The directory of metrics that one program's processes share, when nobody has named one.

A program that is killed cannot delete it, so the next start does: the programs that use a directory
hold a lock on a file in it, which the kernel releases at their death."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["make_metrics_directory"]

PREFIX = "eventsite-metrics-"
# Until it is locked it has another name, so that a program that starts meanwhile leaves it alone.
DRAFT = "eventsite-draft-"
LOCK = "lock"  # prometheus_client reads files named *.db alone


def make_metrics_directory() -> str:
    """A new one in the temporary folder, deleted when this process ends. Deletes those of the dead."""
    _delete_abandoned()
    draft = Path(tempfile.mkdtemp(prefix=DRAFT))
    # Held until this process and every fork of it has ended; a program that is executed does not
    # inherit it.
    _lock(draft)
    directory = draft.rename(draft.with_name(draft.name.replace(DRAFT, PREFIX)))
    atexit.register(_delete, directory, os.getpid())
    return str(directory)


def _lock(directory: Path) -> int:
    """The file descriptor that holds the lock. Raises OSError where another process holds it."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _delete_abandoned() -> None:
    """Only directories with a lock file are looked at: others are not known to be abandoned."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):  # in use, another user's, or deleted by another start
            descriptor = _lock(lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)
            os.close(descriptor)


def _delete(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # forks run this too, while their parent goes on
        shutil.rmtree(directory, ignore_errors=True)
