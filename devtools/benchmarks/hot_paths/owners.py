"""py-spy beside a load: in which part of the program a web process spends its processor time."""

from __future__ import annotations

import collections
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["sampling", "shares_by_owner"]

# Owners by a part of the file's path, the first that fits.
_OWNERS = {
    "/eventsite/web/gateway/": "gateway",
    "/benchmarks/hot_paths/bare.py": "bare server",
    "/eventsite/web/hot_paths/wire.py": "statements and rows",
    "/eventsite/web/hot_paths/session.py": "statements and rows",
    "/eventsite/web/hot_paths/pool.py": "statements and rows",
    "/site-packages/psycopg": "statements and rows",
    "/eventsite/web/hot_paths/": "hot paths",
    "/orders/": "the app's code",
    "/restapi/": "the app's code",
    "/outbox/": "the app's code",
    "/eventsite/web/server.py": "uvicorn",
    "/eventsite/web/cork.py": "uvicorn",  # sends what it writes
    "/site-packages/uvicorn/": "uvicorn",
    "/site-packages/uvloop/": "event loop",
    "/asyncio/": "event loop",
}
_RATE = 500  # samples a second


@contextmanager
def sampling(pid: int, seconds: float) -> Iterator[Callable[[], Mapping[str, float]]]:
    """Samples a process and its children for `seconds`, which begin with the block. Behind the
    block the call returns the shares. Raises SystemExit where py-spy may not look into it."""
    with tempfile.TemporaryDirectory() as directory:
        stacks = Path(directory) / "stacks"
        command = [
            *(f"{sysconfig.get_path('scripts')}/py-spy", "record", "--pid", str(pid)),
            *("--subprocesses", "--full-filenames", "--format", "raw", "--output", str(stacks)),
            *("--rate", str(_RATE), "--duration", str(max(1, round(seconds)))),
        ]
        spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603
        shares: dict[str, float] = {}
        try:
            yield lambda: shares
            _, said = spy.communicate()
        finally:
            spy.kill()
        if spy.returncode:
            raise SystemExit(f"py-spy may have to be run by root: {said.decode()}")
        shares.update(shares_by_owner(stacks.read_text().splitlines()))


def shares_by_owner(stacks: Iterable[str]) -> Mapping[str, float]:
    """Of lines like `outer (/file.py:1);inner (/other.py:2) 17`, the samples of a stack behind it: each
    owner's share of all. The innermost Python frame counts; what it calls in C, system calls
    included, is its own."""
    samples: collections.Counter[str] = collections.Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        innermost = stack.rpartition(";")[2]
        owner = (owner for part, owner in _OWNERS.items() if part in innermost)
        samples[next(owner, "others")] += int(count)
    return {owner: count / samples.total() for owner, count in samples.items()}
