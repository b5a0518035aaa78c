"""docs/guarantees.md names files and tests that exist, and the code cites rules that stand there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from devtools.repository import files

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/guarantees.md").read_text()
LAST_RULE = 21
CITED = re.compile(r"guarantees\.md(#r\d+(?:(?:,| and| to) #r\d+)*)")


def _rules(page: str) -> dict[str, str]:
    parts = re.split(r"^### R(\d+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _named(text: str, label: str) -> list[str]:
    """What stands in backticks in the list item with this label."""
    item = re.search(rf"^- {label}: (.*?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", item[1]) if item else []


def _has_test(name: str) -> bool:
    """`path`, `path::test`, `path::Class` or `path::Class::test`."""
    path, *names = name.split("::")
    if not (ROOT / path).is_file():
        return False
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text()).body
    for each in names:
        found = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == each
        ]
        if not found:
            return False
        body = found[0].body
    return True


RULES = _rules(PAGE)


def test_every_rule_has_its_section() -> None:
    assert list(RULES) == [str(number) for number in range(1, LAST_RULE + 1)]


@pytest.mark.parametrize("number", RULES)
def test_a_rule_has_promise_mechanism_files_and_tests_that_exist(number: str) -> None:
    text = RULES[number]
    assert re.search(r"^\*\*.+\*\*$", text, re.MULTILINE), "the rule in one sentence"
    assert re.search(r"^- Promise: \S", text, re.MULTILINE)
    assert re.search(r"^- Mechanism: \S", text, re.MULTILINE)
    files, tests = _named(text, "File"), _named(text, "Test")
    assert files
    assert tests
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert [name for name in tests if not _has_test(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "outbox.tests.test_nothing",
        "outbox/tests/test_effects.py::TestNothing",
        "outbox/tests/test_effects.py::TestAChunk::test_nothing",
        "outbox/tests/test_effects.py::test_twice_changes_nothing",
    ],
)
def test_a_test_that_has_gone_is_noticed(name: str) -> None:
    assert not _has_test(name)


def test_the_code_cites_rules_of_the_page() -> None:
    cited = set()
    for path in files("*.py", "*.md", "*.yml", "*.yaml"):
        for line in path.read_text().splitlines():
            if "guarantees.md#r" in line:
                for group in CITED.findall(line):
                    cited |= set(re.findall(r"\d+", group))
    assert cited
    assert cited - set(RULES) == set()


def test_no_rule_is_cited_without_its_page() -> None:
    found = [
        f"{path}: {line}"
        for path in files("*.py", "*.md", "*.yml", "*.yaml")
        for line in path.read_text().splitlines()
        if re.search(r"[Rr]ules? R[0-9]", line)
    ]
    assert found == []
