"""The temporary folder is left as it was found, also by programs that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devtools.testing import zygote
from devtools.testing.processes import REPOSITORY

# Says its directory, then waits for the end of its input.
PROGRAM = """
import os, sys
from eventsite.settings.env import environment
print(environment().prometheus_multiproc_dir, flush=True)
sys.stdin.read()
"""
# The same in a fork whose parent has ended by SIGKILL.
FORKED = """
import os, signal, sys
from eventsite.settings.env import environment
environment()
parent = os.getpid()
if os.fork():
    os.kill(parent, signal.SIGKILL)
print(environment().prometheus_multiproc_dir, flush=True)
sys.stdin.read()
"""


def variables(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return {**kept, "TMPDIR": str(folder)}


@contextmanager
def program(folder: Path, code: str = PROGRAM) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=variables(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        yield child, Path(child.stdout.readline().strip())
    finally:
        child.communicate()  # ends its input


def left_in(folder: Path) -> set[Path]:
    return set(folder.iterdir())


@pytest.mark.parametrize("command", [("check",), ("generate_load", "--help"), ("nonsense",)])
def test_a_command_leaves_nothing(tmp_path: Path, command: tuple[str, ...]) -> None:
    zygote.run("manage.py", *command, environment=variables(tmp_path))
    assert left_in(tmp_path) == set()


def test_the_next_start_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    other = tmp_path / "eventsite-metrics-somebody-elses"  # without our lock: not known to be ours
    other.mkdir()
    with program(tmp_path) as (living, kept):
        with program(tmp_path) as (killed, abandoned):
            assert left_in(tmp_path) == {other, kept, abandoned}
            killed.kill()
            killed.wait()
            assert abandoned.is_dir()
        with program(tmp_path) as (_, third):
            assert left_in(tmp_path) == {other, kept, third}
        assert left_in(tmp_path) == {other, kept}
        assert living.poll() is None
    assert left_in(tmp_path) == {other}


def test_a_directory_is_kept_while_a_fork_of_its_program_lives(tmp_path: Path) -> None:
    with program(tmp_path, FORKED) as (parent, used):
        parent.wait()
        with program(tmp_path) as (_, other):
            assert left_in(tmp_path) == {used, other}
    with program(tmp_path) as (_, other):
        assert left_in(tmp_path) == {other}


@pytest.mark.parametrize("set_to", [None, ""])
def test_who_is_started_by_celery_counts_into_it_too(tmp_path: Path, set_to: str | None) -> None:
    """Beat: before the settings are read nothing may import what asks for the directory at its import."""
    code = "import eventsite.celery, prometheus_client.values as v; print(v.ValueClass.__name__)"
    given = {} if set_to is None else {"PROMETHEUS_MULTIPROC_DIR": set_to}
    told = zygote.run(
        "-c", f"{code}; import outbox.metrics", environment={**variables(tmp_path), **given}
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == "MmapedValue"
    assert not list(REPOSITORY.glob("*.db"))
