"""Every mutant finds the guard that it breaks: a statement that was worded anew breaks none silently."""

from __future__ import annotations

import subprocess
import sys

BREAK_ALL = """
import django

django.setup()
from devtools.chaos import mutants
from devtools.chaos.relay import misbehave
from eventsite.web.status_hub import statements
from feeds.fanout import trimming
from notifications.realtime import STATUS_LOG

for name, break_guard in {**mutants.BREAKS, **misbehave.BREAKS}.items():
    print(name, flush=True)
    break_guard()
# What is worded at each use only
trimming._trimming()
statements.number(STATUS_LOG, 0)
assert "seq > %s::bigint" in statements.rows_between(STATUS_LOG, 0, 0)[0]
"""


def test_every_mutant_finds_its_guard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BREAK_ALL],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
