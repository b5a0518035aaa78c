"""What every embedded server gives to the stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from devtools.localstack.errors import LocalStackError
from devtools.localstack.unit import Unit

__all__ = ["Report", "Server", "wheel_directory"]

Report = Callable[[str], None]  # takes one line for the person at the terminal


@dataclass(frozen=True, slots=True)
class Server:
    """A server that our processes reach by `environment`; `unit` is None when it is not ours."""

    name: str
    description: str
    environment: Mapping[str, str]
    unit: Unit | None = None
    is_new: bool = False  # starts without any data
    forgets: bool = False  # loses its data whenever it restarts
    after_ready: Callable[[], None] = field(default=lambda: None)


def wheel_directory(package: str, instead: str) -> Path:
    """The folder of an installed package, found without running any of its code."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise LocalStackError(
            f"Package {package} is not installed. Run `make .venv/.installed-run`, or set {instead}."
        )
    return Path(spec.origin).parent
