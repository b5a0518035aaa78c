"""Several workers under one supervisor: slow to start, stopped while they start, hung."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import Process, child_environment, free_port, get_status, running

SERVE = """
from eventsite.web import server, workers
server.ANSWER_SECONDS = 1
workers.START_SECONDS = {patience}
server.serve("answers_ok:application", host="127.0.0.1", port={port}, workers=2)
"""
APPLICATION = """
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        for done in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{done}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
"""
DOES_NOT_START = """
async def application(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed"})
"""
# Read by each Python before anything else; a worker's command line names what makes it one.
SLOW = """
import sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    time.sleep({seconds})
"""


@contextmanager
def workers(
    folder: Path,
    *,
    start_takes: float = 0,
    patience: float = PATIENCE,
    ready: bool = True,
    application: str = APPLICATION,
) -> Iterator[tuple[Process, str]]:
    """Two that have a second for each answer to their supervisor; that one, and the address."""
    (folder / "answers_ok.py").write_text(application)
    (folder / "sitecustomize.py").write_text(SLOW.format(seconds=start_takes))
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = (sys.executable, "-c", SERVE.format(port=port, patience=patience))
    environment = child_environment(PYTHONPATH=path)
    with running(command, environment, url if ready else None) as process:
        yield process, url


def children(process: Process) -> set[int]:
    """Of it, those that serve or will."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    pids = map(int, path.read_text().split())
    return {pid for pid in pids if b"--multiprocessing-fork" in _command_of(pid)}


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_those_that_start_slowly_are_not_killed(tmp_path: Path) -> None:
    with workers(tmp_path, start_takes=4, ready=False) as (process, url):
        assert settles(lambda: len(children(process)) == 2)
        begun = children(process)
        assert settles(lambda: get_status(url) == 200)
        assert children(process) == begun


def test_a_stop_is_heard_while_they_start(tmp_path: Path) -> None:
    with workers(tmp_path, start_takes=3600, ready=False) as (process, _):
        assert settles(lambda: len(children(process)) == 2)
        assert process.stop() == 0


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, patience=20) as (process, url):
        assert settles(lambda: len(children(process)) == 2)
        hung = min(children(process))
        os.kill(hung, signal.SIGSTOP)
        assert settles(lambda: hung not in children(process) and len(children(process)) == 2)
        assert settles(lambda: get_status(url) == 200)
        assert "web_worker_replaced" in process.log.read_text()


def test_where_the_application_does_not_start_all_end_with_code_3(tmp_path: Path) -> None:
    """As one process alone does: whatever started them sees that it failed."""
    with workers(tmp_path, ready=False, application=DOES_NOT_START) as (process, _):
        assert process.child.wait(PATIENCE) == 3
