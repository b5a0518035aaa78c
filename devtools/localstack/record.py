"""What a running stack writes down for `status`, `down`, `restart` and the next `up`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Identity", "Record", "UnitRecord"]

# The start time is derived from the boot time, which two readers may round differently.
TOLERANCE = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    created: float  # seconds since the epoch

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    @classmethod
    def read(cls, path: Path) -> Identity | None:
        try:
            found = json.loads(path.read_text())
            return cls(int(found["pid"]), float(found["created"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def process(self) -> psutil.Process | None:
        """The process itself; None when it is gone, even if its pid lives on in another."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) > TOLERANCE:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.Error:
            return None

    def is_alive(self) -> bool:
        return self.process() is not None


@dataclass(slots=True)
class UnitRecord:
    """One server or process; `identity` is None while it is down."""

    name: str
    port: int
    log: str
    health: str  # URL that shows its health
    stop_signal: int
    grace: float
    identity: Identity | None = None
    restarts: int = 0


@dataclass(slots=True)
class Record:
    """A stack that runs or is starting."""

    supervisor: Identity
    ready: bool = False
    base_url: str = ""
    servers: dict[str, str] = field(default_factory=dict)  # name -> what it is
    environment: dict[str, str] = field(default_factory=dict)  # to reach the servers by hand
    admin: str = ""  # what the preparation said about the admin login
    units: list[UnitRecord] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)  # a URL may carry a password
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """None when there is none, or one of another layout."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
            units = [
                UnitRecord(**{**unit, "identity": _identity(unit["identity"])})
                for unit in found.pop("units")
            ]
            return cls(supervisor=Identity(**found.pop("supervisor")), units=units, **found)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _identity(found: dict[str, Any] | None) -> Identity | None:
    return Identity(**found) if found else None
