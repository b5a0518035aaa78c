"""One word for one thing: idioms that docs/glossary.md replaces come back nowhere."""

from __future__ import annotations

import re

import pytest

from devtools.repository import files
from eventsite.tests.test_docs import ROOT, _name

# Idiom -> the word for it.
REPLACED = {
    r"\bmade anew\b": "recreated",
    r"\b(?:let|lets) go of\b": "delete, release or close",
    r"\bof nobody\b": "without an owner",
    r"\b(?:is|was|are) told\b": "get, receive, is answered",
    r"\btells? (?:of|apart)\b": "report, name, distinguish",
    r"\b(?:database|Redis|Kafka|RabbitMQ|PostgreSQL)(?: that)? (?:is|was) away\b": "unavailable",
}
# Raw records, findings about other programs, and tests, whose names say what they show.
EXEMPT = re.compile(r"^devtools/benchmarks/history|^findings/|/migrations/|/tests/")
KINDS = ("*.py", "*.md", "*.html", "*.yml", "*.yaml", "*.tf", "*.tpl", ".env.example", "Makefile")
FILES = [path for path in files(*KINDS) if not EXEMPT.search(_name(path)) and path.is_file()]


# A reason in metrics and log lines, and the help text of a field, which a migration has too.
KEPT = ('"topic made anew"', "a topic made anew has another")


def _found(text: str) -> list[str]:
    for kept in KEPT:
        text = text.replace(kept, "")
    return [
        f"{match[0]}: {word}"
        for idiom, word in REPLACED.items()
        for match in re.finditer(idiom, text)
    ]


def test_no_file_uses_a_replaced_idiom() -> None:
    found = {_name(path): _found(path.read_text()) for path in FILES}
    assert {name: idioms for name, idioms in found.items() if idioms} == {}


@pytest.mark.parametrize("text", ["the topic was made anew", "a caller is told", "Kafka is away"])
def test_an_idiom_is_noticed(text: str) -> None:
    assert _found(text)


def test_words_of_the_glossary_stand_once() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    words = [word.strip() for row in rows[2:] for word in row.split(",")]
    assert len(words) == len(set(words)) > 40
