"""What the texts name is there: files, links, modules, commands of make and of manage.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from django.core.management import get_commands

from devtools.repository import files

ROOT = Path(__file__).resolve().parents[2]
MADE = re.compile(r"devtools/(benchmarks|chaos)/results/|^notes/")  # by a run; by the reader
A_FILE = re.compile(r"(?<![\w/.…<>-])(?:[\w.-]+/)+[\w.-]+\.(?:py|md|yaml|yml|txt|toml|in)\b")
A_FOLDER = re.compile(r"(?<![\w/.…-])(?:[\w.-]+/)+(?=[`\s),;:])")
A_LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([\w-]+))?\)")
AN_IMPORT = re.compile(r"\bfrom ([\w.]+) import (\w+)")
A_COMMAND = re.compile(r"manage\.py (?!\w+\.py)([a-z]\w+)")
A_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
A_TARGET = re.compile(r"\bmake ([a-z][\w-]*)")


PAGES = files("*.md")
TEXTS = [
    *PAGES,
    *files(
        "*.py", "*.yaml", "*.yml", "*.in", "*.toml", "Makefile", ".importlinter", ".env.example"
    ),
]
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _is_there(name: str, page: Path) -> bool:
    return bool(MADE.search(name)) or (ROOT / name).exists() or (page.parent / name).exists()


def _missing_files(page: Path, text: str) -> Iterator[str]:
    named = [*A_FILE.findall(text), *A_FOLDER.findall(text)]
    for name in named:
        if name.partition("/")[0] in FOLDERS and not _is_there(name, page):
            yield name


def test_every_named_file_is_there() -> None:
    """In the pages, and in docstrings and comments too: whoever moves a file finds them here."""
    missing = {
        _name(page): [*_missing_files(page, page.read_text())]
        for page in TEXTS
        if page != Path(__file__)
    }
    assert {page: names for page, names in missing.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    ["see outbox/drain.py", "`eventsite/gateway/layer.py`", "in `outbox/lane/`", "docs/nothing.md"],
)
def test_a_file_that_has_moved_is_noticed(text: str) -> None:
    assert [*_missing_files(ROOT / "README.md", f"{text} ")] != []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for name, anchor in A_LINK.findall(page.read_text()):
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                broken.append((_name(page), name, anchor))
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_what_a_page_has_typed_exists(page: Path) -> None:
    """Imports of `shell -c`, commands of manage.py, targets of make."""
    text = page.read_text()
    for module, name in AN_IMPORT.findall(text):
        if module.partition(".")[0] in FOLDERS:
            assert hasattr(import_module(module), name), f"{module}.{name}"
    assert set(A_COMMAND.findall(text)) <= {*get_commands(), "test"}
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    fences = A_FENCE.findall(text)
    code = [*re.findall(r"`([^`]+)`", A_FENCE.sub("", text)), *fences]
    typed = {target for part in code for target in A_TARGET.findall(part)}
    assert typed <= set(targets)


def test_the_house_has_every_room() -> None:
    """The tree of docs/architecture.md against the packages of the repository."""
    page = (ROOT / "docs/architecture.md").read_text()
    tree = page.partition("## The folders")[2].partition("```\n")[2].partition("```")[0]
    shown = set(re.findall(r"^ *([a-z_]+)/", tree, re.MULTILINE))
    hidden = {"admin", "management", "migrations", "postgresql", "settings", "tests"}
    rooms = {
        path.parent.name
        for place in (ROOT, ROOT / "outbox", ROOT / "eventsite", ROOT / "devtools")
        for path in place.glob("*/__init__.py")
    }
    assert rooms - hidden == shown - {"deploy", "docker", "docs", "findings", "scripts"}
