"""Starts the warden beside a stack and signals to it when the stack has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from devtools.localstack.environment import MARKER

__all__ = ["Guard"]

WARDEN = Path(__file__).with_name("warden.py")


class Guard:
    """Holds the pipe on whose end the warden sweeps up and deletes `removals`."""

    def __init__(self, mark: str, environment: Mapping[str, str], removals: Sequence[Path]) -> None:
        # without the mark: the warden of a stack inside another outlives the sweep of the outer one
        unmarked = {name: value for name, value in environment.items() if name != MARKER}
        self._warden = subprocess.Popen(  # noqa: S603 - this project itself
            [sys.executable, "-I", str(WARDEN), MARKER, mark, *map(str, removals)],
            env=unmarked,
            cwd=os.sep,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Let the warden do its work, and wait until it is done."""
        if self._warden.stdin is not None:
            with suppress(OSError):
                self._warden.stdin.close()
        self._warden.wait()
