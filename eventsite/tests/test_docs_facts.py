"""What the pages state is so: names of metrics, settings and functions, tables of topics and roles; and they
are written for a stranger: no journal, no times of day, a README of one screen or two."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from devtools.repository import files
from eventsite.roles import ROLES
from eventsite.tests.test_docs import A_FENCE, PAGES, ROOT, _name
from outbox import conf

AN_IDENTIFIER = re.compile(r"(?<![\w/-])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?![\w/-])")
A_SERIES = re.compile(r"_(?:total|count|sum|bucket)$")  # what prometheus_client appends by itself
A_JOURNAL = re.compile(
    r"(?<![\d:])(?:[01]\d|2[0-3]):[0-5]\d(?![\d:])|\bby hand\b|\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7}\b"
)
# Names of other programs: OpenTelemetry's SDK, PgBouncer, channels, pika.
OF_OTHERS = {
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "aclose_old_connections",
    "heartbeat_check",
    "ignore_startup_parameters",
    "max_locks_per_transaction",
    "parentbased_traceidratio",
}
RECORDS = re.compile(r"^devtools/benchmarks/history/|^findings/")
CURRENT = [page for page in PAGES if not RECORDS.search(_name(page))]
TIMELESS = [ROOT / "README.md", ROOT / "docs/performance.md", ROOT / "docs/load-testing.md"]


def _identifiers(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+", text))


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every identifier that stands in a file of the repository that is no page, and names of files."""
    names = set(OF_OTHERS)
    for path in files(
        "*.py", "*.sh", "*.yaml", "*.yml", "*.toml", "*.json", "*.tf", "*.tpl", "*.html",
        "*.conf", "*.in", "*.lua", "Makefile", "Dockerfile", ".env.example", ".importlinter",
    ):  # fmt: skip
        if path.is_file():
            names |= _identifiers(path.read_text(errors="replace")) | {path.stem}
    return names


def _unknown(text: str, known: set[str]) -> set[str]:
    """Names in backticks that neither the code nor an example of the same page has."""
    examples = {name for fence in A_FENCE.findall(text) for name in _identifiers(fence)}
    named = {
        name
        for code in re.findall(r"`([^`\n]+)`", A_FENCE.sub("", text))
        for name in AN_IDENTIFIER.findall(code)
    }
    return {name for name in named - known - examples if A_SERIES.sub("", name) not in known}


@pytest.mark.parametrize("page", CURRENT, ids=_name)
def test_what_a_page_names_exists(page: Path, known: set[str]) -> None:
    """Metrics, settings, functions, tables, fields: whatever stands in backticks with an underscore."""
    assert _unknown(page.read_text(), known) == set()


@pytest.mark.parametrize(
    "text", ["`no_such_metric_total`", "set `NO_SUCH_VARIABLE=1`", "`OutboxEvent.no_such_field`"]
)
def test_a_name_that_has_gone_is_noticed(text: str, known: set[str]) -> None:
    # Put together here, so that this file does not make them known.
    assert _unknown(
        text.replace("no_such", "no" + "_longer").replace("NO_SUCH", "NO" + "_LONGER"), known
    )


def _rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_topics_is_the_event_map() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    shown = {
        name.strip("`"): (
            set(re.findall(r"`(\w+)`", events)),
            set(re.findall(r"`(\w+)`", handlers)),
        )
        for name, events, handlers in _rows(page, "Topics")
    }
    types = defaultdict(set)
    for event in conf.published_events():
        if not event.__module__.startswith("devtools."):  # the probe is installed in tests alone
            types[event.topic.name].add(event.type)
    handlers = {
        name: {route.handler for route in conf.routes() if route.topic.name == name}
        for name in types
    }
    assert shown == {name: (types[name], handlers[name]) for name in types}


def test_the_table_of_processes_has_every_role() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    shown = [
        role
        for cells in _rows(page, "Processes")
        for role in re.findall(r"role `([\w-]+)`", cells[0])
    ]
    assert shown == list(ROLES)


def test_every_hot_path_is_in_its_table() -> None:
    page = (ROOT / "docs/http.md").read_text()
    shown = {
        (method, re.sub(r"\{\w+\}", "{}", path))
        for cells in _rows(page, "Hot paths")
        for method, path in re.findall(r"`([A-Z]+) (/\S+?)`", cells[0])
    }
    declared = {
        (getattr(hot, "method", "GET"), re.sub(r"\{\w+\}", "{}", hot.path))
        for hot in map(import_string, settings.WIRING.hot_paths)
    }
    assert shown == declared


def test_the_readme_is_short_and_has_three_rows_of_speed() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(_rows(text, "How fast")) == 3
    assert "\nmake demo " in text
    assert "\nmake test " in text


@pytest.mark.parametrize("page", TIMELESS, ids=_name)
def test_figures_are_no_journal(page: Path) -> None:
    """Times of day, commits and runs that nobody can repeat belong to devtools/benchmarks/history/."""
    assert A_JOURNAL.findall(page.read_text()) == []


@pytest.mark.parametrize("text", ["at 10:57 it made", "of 80abae5,", "measured by hand"])
def test_a_journal_is_noticed(text: str) -> None:
    assert A_JOURNAL.search(text)
