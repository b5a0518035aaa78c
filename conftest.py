"""Options of the whole test run."""

from __future__ import annotations

from collections.abc import Generator

import pytest

PROCESS_TESTS = ("eventsite/tests/", "eventsite/localstack/", "docker/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="a skipped test fails the run: where everything is installed nothing may be skipped",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests start processes and wait for them begin first, each in its random place:
    otherwise one worker ends with the longest of them while the other has nothing left."""
    items.sort(key=lambda item: not item.nodeid.startswith(PROCESS_TESTS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (
        report.skipped
        and item.config.getoption("--fail-on-skip")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, and --fail-on-skip is given: {report.longrepr}"
    return report
