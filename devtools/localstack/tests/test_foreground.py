"""Commands in the foreground: what they get, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from devtools.localstack.record import Identity, Record
from devtools.localstack.state import CLONE
from devtools.localstack.tests.commands import command_line
from devtools.testing.patience import PATIENCE

# What generate_load does: it ends its sending, waits for answers and prints a report.
COMMAND = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1.0), print("report", flush=True), sys.exit(7)))
print("begun", flush=True)
time.sleep(30)
"""
MANAGE = """
import sys
from pathlib import Path
from devtools.localstack.foreground import manage
from devtools.localstack.state import StackState
sys.exit(manage(StackState(Path(sys.argv[1])), ["shell", "--no-imports", "-c", sys.argv[2]]))
"""


def test_commands_get_the_addresses_of_the_stack_and_not_those_of_the_caller(
    tmp_path: Path,
) -> None:
    """PORT first of all: another program may listen where a caller's PORT, or the default, points."""
    Record(supervisor=Identity.of(os.getpid()), ready=True, environment={"PORT": "18999"}).write(
        tmp_path / "stack.json"
    )
    code = "from eventsite.settings.env import environment; print(environment().port)"
    for variables in ({"PORT": "8080"}, {"APP_PORT": "8081"}):
        done = subprocess.run(
            [sys.executable, "-c", MANAGE, str(tmp_path), code],
            cwd=CLONE,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        assert done.stdout == "18999\n"


def test_ctrl_c_lets_the_command_finish(tmp_path: Path) -> None:
    Record(supervisor=Identity.of(os.getpid()), ready=True).write(tmp_path / "stack.json")
    child = subprocess.Popen(
        [sys.executable, "-c", MANAGE, str(tmp_path), COMMAND],
        cwd=CLONE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as at a terminal
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    os.killpg(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=PATIENCE)
    assert (out, child.returncode) == ("report\n", 7)


def run_here(state: Path, *names: str) -> subprocess.Popen[str]:
    """`run` on a stack whose servers are up, as far as its record says."""
    Record(supervisor=Identity.of(os.getpid()), ready=True, environment={"PORT": "18999"}).write(
        state / "stack.json"
    )
    return subprocess.Popen(
        command_line(
            *("--state", str(state), "--plan", "devtools.localstack.tests.plans:FOREGROUND"),
            *("run", *names),
        ),
        cwd=CLONE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_processes_run_here_until_ctrl_c(tmp_path: Path) -> None:
    here = run_here(tmp_path, "worker", "web")
    assert here.stdout is not None
    said = {here.stdout.readline(), here.stdout.readline()}
    assert said == {"worker 18999\n", "web 18999\n"}
    children = psutil.Process(here.pid).children()
    assert len(children) == 2
    os.killpg(here.pid, signal.SIGINT)
    here.communicate(timeout=PATIENCE)
    assert here.returncode == 0
    assert not any(child.is_running() for child in children)


def test_when_one_ends_all_end_with_its_exit_code(tmp_path: Path) -> None:
    here = run_here(tmp_path)  # all but web
    out, _ = here.communicate(timeout=PATIENCE)
    assert ("bridge 18999" in out, "web" in out, here.returncode) == (True, False, 3)


def test_what_cannot_run_is_said(tmp_path: Path) -> None:
    here = run_here(tmp_path, "nonsense")
    here.communicate(timeout=PATIENCE)
    assert here.returncode == 1
    (tmp_path / "stack.json").unlink()
    nothing = subprocess.run(
        command_line("--state", str(tmp_path), "run"), cwd=CLONE, capture_output=True, check=False
    )
    assert nothing.returncode == 1
    assert b"make infra" in nothing.stderr
