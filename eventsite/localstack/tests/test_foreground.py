"""A command of `make manage` decides itself what Ctrl-C means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from eventsite.localstack.record import Identity, Record
from eventsite.localstack.state import CLONE

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
from eventsite.localstack.foreground import manage
from eventsite.localstack.state import State
sys.exit(manage(State(Path(sys.argv[1])), ["shell", "--no-imports", "-c", sys.argv[2]]))
"""


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
    out, _ = child.communicate(timeout=30)
    assert (out, child.returncode) == ("report\n", 7)
