"""The log says everything, whatever it is about."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import structlog


def test_half_a_character_is_spelt_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a payload that is no UTF-8, in the words of a handler that fails for it."""
    structlog.get_logger("tests").error("failed", error="half \udcff", at="now")
    [line] = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    assert (line["error"], line["level"], line["service"]) == ("half \udcff", "error", "eventsite")


LONG = "x" * 1_000_000


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in capfd.readouterr().err.splitlines()]


def test_a_field_of_a_megabyte_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    """A key of a message, or what PostgreSQL says of a value that it cannot take."""
    structlog.get_logger("tests").error("failed", error=LONG, key="k")
    [line] = lines(capfd)
    assert line["error"] == f"{LONG[:2000]}… (998000 more)"
    assert (line["key"], line["event"]) == ("k", "failed")


def test_a_stack_keeps_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(f"{LONG}the end")
    except ValueError:
        structlog.get_logger("tests").exception("failed")
    [line] = lines(capfd)
    assert line["exception"].endswith("the end")
    assert len(line["exception"]) < 17_000


def test_lines_of_libraries_are_cut_too() -> None:
    """Celery writes the whole body of a task that it does not know."""
    record = logging.LogRecord("celery", logging.ERROR, "", 0, LONG, (), None)
    [handler] = [
        each for each in logging.getLogger().handlers if type(each) is logging.StreamHandler
    ]
    assert len(handler.format(record)) < 3_000
