"""Where a stack keeps what it has: one directory, all of it disposable."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devtools.localstack.environment import MARKER
from devtools.localstack.errors import LocalStackError
from devtools.localstack.logins import private_folder
from devtools.localstack.record import Identity
from devtools.localstack.warden import remove, sweep

__all__ = ["CLONE", "StackState", "clone_state", "ephemeral_state"]

CLONE = Path(__file__).resolve().parents[2]
OWNER = "owner.json"


@dataclass(frozen=True, slots=True)
class StackState:
    """The layout of one state directory."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def record(self) -> Path:
        return self.root / "stack.json"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the directories. Raises LocalStackError when this user may not."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise LocalStackError(
                f"{self.root} cannot be written ({error.strerror}). Delete it as the user who made it"
                " (make clean-state), or give it to this one."
            ) from None


def clone_state() -> StackState:
    """The state of `make up`: one a clone, so that two clones run side by side."""
    return StackState(CLONE / ".localstack")


def ephemeral_state() -> StackState:
    """A fresh private directory below the clone, or the temp folder where the clone is read-only."""
    base = clone_state().root
    _remove_abandoned(Path(tempfile.gettempdir()).glob("eventsite-run-*"))
    try:
        base.mkdir(exist_ok=True)
        _remove_abandoned(base.glob("run-*"))
        root = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=base))
    except OSError:
        root = Path(tempfile.mkdtemp(prefix=f"eventsite-run-{os.getpid()}-"))
    root.chmod(0o755)  # PostgreSQL, which runs as another user under root, must reach its part
    state = StackState(root)
    state.create()
    Identity.of(os.getpid()).write(root / OWNER)
    return state


def _remove_abandoned(roots: Iterable[Path]) -> None:
    """Clean up this user's runs of which even the warden was killed."""
    for root in roots:
        owner = Identity.read(root / OWNER)
        if owner is not None and not owner.is_alive() and root.stat().st_uid == os.geteuid():
            sweep(MARKER, str(root))
            remove(str(private_folder(root / "postgres")))
            remove(str(root))
