"""`make picture`: the page of operators as Chromium shows it.

Without options README's picture: of the stack that runs here (`make up`), as it is, or else of one of its own
under some load, for a few minutes, so that the charts have something to show. With --all every page in every
state, as somebody looks at them who has changed one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from devtools.localstack import LocalStackError
from devtools.picture.png import packed
from devtools.picture.sites import STATES, Site, site_in

if TYPE_CHECKING:
    from devtools.testing.browser import Tab

NAME = PASSWORD = "admin"  # noqa: S105  (of every local stack)
README = Path("docs/ops.png")
WIDTH, HEIGHT = 1280, 1400
WIDTHS = (1440, 390)
SCHEMES = ("light", "dark")
# Django's settings are read once, and rows are written by Django for the first of these alone; it is
# pictured without its servers as well.
ALL = ("unwell", "well", "million")
SECONDS = 60.0  # for the login
LOOKED_SECONDS = 5.0  # rates are made of what it sees in this time
LARGEST = 250_000  # bytes


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is looked at: the window's size in CSS pixels, and whether scripts run."""

    width: int
    scheme: str
    script: bool = True
    height: int = 900

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}{'' if self.script else '-no-script'}"


def main() -> int:
    """0; 1 if there is no stack, no login, or README's picture is too large."""
    options = _options()
    console = Console(stderr=True)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
    try:
        if options.all:
            for state in [options.state] if options.state else ALL:
                _album(options, state, console)
            return 0
        made = _one(options, console)
    except LocalStackError as error:
        console.print(f"[red]{error}[/]")
        return 1
    options.file.write_bytes(made)
    console.print(f"{options.file}: {len(made):,} bytes")
    if options.file == README and len(made) > LARGEST:
        console.print(f"[red]README's picture may have {LARGEST:,} bytes.[/]")
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make picture", description=__doc__)
    parser.add_argument("--all", type=Path, metavar="DIR", help="every page in every state")
    parser.add_argument("--state", choices=STATES, help="default: well; with --all: only this one")
    parser.add_argument("--page", default="ops", help="its short name, as in the files of --all")
    parser.add_argument("--file", type=Path, default=README)
    parser.add_argument("--width", type=int, default=WIDTH, help="CSS pixels")
    parser.add_argument("--height", type=int, default=HEIGHT, help="0: the whole page")
    parser.add_argument("--scheme", choices=SCHEMES, default="light")
    parser.add_argument("--no-script", dest="script", action="store_false")
    parser.add_argument("--minutes", type=float, default=6.0, help="of load, where none runs here")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows of a million")
    return parser.parse_args()


def _one(options: argparse.Namespace, console: Console) -> bytes:
    look = Look(options.width, options.scheme, options.script, options.height or 900)
    with _opened(options, options.state or "well", console) as (site, tab):
        if options.page not in site.pages:
            raise LocalStackError(f"It has the pages {', '.join(site.pages)}.")
        _go(tab, look, site.url + site.pages[options.page])
        return packed(tab.window() if options.height else tab.whole())


def _album(options: argparse.Namespace, state: str, console: Console) -> None:
    options.all.mkdir(parents=True, exist_ok=True)
    with _opened(options, state, console) as (site, tab):
        _pictures(options.all, state, site, tab)
        if state == "unwell":
            lost = site.without_servers()
            time.sleep(LOOKED_SECONDS)
            _pictures(options.all, "away", lost, tab)
    console.print(f"{state}: in {options.all}")


def _pictures(folder: Path, state: str, site: Site, tab: Tab) -> None:
    """All pages of a state, whole; the page of operators without scripts as well."""
    for name, path in site.pages.items():
        for look in _looks(name):
            _go(tab, look, site.url + path)
            (folder / f"{state}-{name}-{look}.png").write_bytes(packed(tab.whole()))


def _looks(page: str) -> Sequence[Look]:
    scripts = (True, False) if page == "ops" else (True,)
    return [Look(*each) for each in product(WIDTHS, SCHEMES, scripts)]


@contextmanager
def _opened(
    options: argparse.Namespace, state: str, console: Console
) -> Iterator[tuple[Site, Tab]]:
    """A site in this state, and a browser of somebody who is logged in and has seen its page for a moment."""
    with site_in(state, minutes=options.minutes, share=options.share, console=console) as site:
        # It reads the settings, which are those of the site from now on.
        from devtools.testing.browser import chromium  # noqa: PLC0415

        with chromium() as browser:
            tab = browser.tab()
            _log_in(tab, site.url)
            pictured = site.without_servers() if state == "away" else site
            time.sleep(LOOKED_SECONDS)
            yield pictured, tab


def _log_in(tab: Tab, url: str) -> None:
    tab.go(f"{url}/admin/login/?next=/ops/")
    for field, value in (("username", NAME), ("password", PASSWORD)):
        tab.value(f"document.querySelector('#id_{field}').value = '{value}'")
    tab.value("document.querySelector('#login-form').submit()")
    give_up = time.monotonic() + SECONDS
    while not tab.value("Boolean(document.querySelector('#live time'))"):
        if time.monotonic() > give_up:
            raise LocalStackError(f"{url} lets nobody in as {NAME}.")
        time.sleep(0.2)


def _go(tab: Tab, look: Look, url: str) -> None:
    tab.show(width=look.width, height=look.height, scheme=look.scheme)
    tab.call("Emulation.setScriptExecutionDisabled", value=not look.script)
    tab.go(url)


if __name__ == "__main__":
    sys.exit(main())
