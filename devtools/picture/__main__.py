"""`make picture`: the page of operators as Chromium shows it, for README.

Of the stack that runs here (`make up`), as it is, or else of one of its own under some load, for a few
minutes, so that the charts have something to show.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from devtools.localstack import LocalStack, LocalStackError
from devtools.localstack.record import Record
from devtools.localstack.state import clone_state
from devtools.picture.png import packed

if TYPE_CHECKING:
    from devtools.testing.browser import Tab

NAME = PASSWORD = "admin"  # noqa: S105  (of every local stack)
WIDTH, HEIGHT = 1280, 1400
SECONDS = 60.0  # for the login
LOGIN_MINUTES = 2.0  # that the load goes on, so that the picture has its rates
ROOT = Path(__file__).parents[2]
LARGEST = 250_000  # bytes
LOADS = (
    ("--profile", "orders", "--rate", "12"),
    ("--profile", "feeds", "--rate", "8", "--users", "200"),
    ("--profile", "notifications", "--rate", "6"),
)


def main() -> int:
    """0; 1 if there is no stack, no login, or the picture is too large."""
    parser = argparse.ArgumentParser(prog="make picture", description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("docs/ops.png"))
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--minutes", type=float, default=6.0, help="of load, where none runs here")
    options = parser.parse_args()
    console = Console(stderr=True)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
    from devtools.testing.browser import chromium  # noqa: PLC0415  (needs the settings named above)

    try:
        with _site(options.minutes, console) as url, chromium() as browser:
            made = _picture(browser.tab(), url, options.scheme)
    except LocalStackError as error:
        console.print(f"[red]{error}[/]")
        return 1
    options.file.write_bytes(made)
    console.print(f"{options.file}: {len(made):,} bytes")
    if len(made) > LARGEST:
        console.print(f"[red]README's picture may have {LARGEST:,} bytes.[/]")
        return 1
    return 0


@contextmanager
def _site(minutes: float, console: Console) -> Iterator[str]:
    """The address of a stack."""
    record = Record.read(clone_state().record)
    if record is not None and record.ready and record.supervisor.is_alive():
        yield record.base_url
        return
    with (
        LocalStack.ephemeral(report=console.print) as stack,
        tempfile.TemporaryDirectory() as folder,
    ):
        loads = [_load(stack, minutes + LOGIN_MINUTES, options, folder) for options in LOADS]
        try:
            console.print(f"{minutes:g} minutes of load …")
            time.sleep(minutes * 60)
            yield stack.base_url
        finally:
            for load in loads:
                load.terminate()
                load.wait()


def _load(
    stack: LocalStack, minutes: float, options: tuple[str, ...], folder: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (a command of ours)
        [
            *(sys.executable, str(ROOT / "manage.py"), "generate_load", *options),
            *("--url", stack.base_url, "--duration", f"{minutes * 60:.0f}s", "--check", "none"),
        ],
        env=stack.env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _picture(tab: Tab, url: str, scheme: str) -> bytes:
    """A login, and what stands at the top of the page once it knows its rates."""
    tab.show(width=WIDTH, height=HEIGHT, scheme=scheme)
    tab.go(f"{url}/admin/login/?next=/ops/")
    for field, value in (("username", NAME), ("password", PASSWORD)):
        tab.value(f"document.querySelector('#id_{field}').value = '{value}'")
    tab.value("document.querySelector('#login-form').submit()")
    give_up = time.monotonic() + SECONDS
    while not tab.value("Boolean(document.querySelector('#live time'))"):
        if time.monotonic() > give_up:
            raise LocalStackError(f"{url} lets nobody in as {NAME}.")
        time.sleep(0.2)
    time.sleep(5)  # rates are made of what it sees in this time
    return packed(tab.window())


if __name__ == "__main__":
    sys.exit(main())
