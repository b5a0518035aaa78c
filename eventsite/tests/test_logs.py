"""The log says everything, whatever it is about."""

from __future__ import annotations

import json

import pytest
import structlog


def test_half_a_character_is_spelt_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a payload that is no UTF-8, in the words of a handler that fails for it."""
    structlog.get_logger("tests").error("failed", error="half \udcff", at="now")
    [line] = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    assert (line["error"], line["level"], line["service"]) == ("half \udcff", "error", "eventsite")
