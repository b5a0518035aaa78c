"""Fixtures of the platform's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outbox import conf
from outbox.dead_letters import redrive, unknown_type
from outbox.handlers import isolate
from outbox.inbox import time_limit
from outbox.tests.letters import create_positions

SLOW = replace(conf.BRIDGE, effect_timeout=120.0)  # seconds


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test is one transaction: the time limit of an effect would end all of it. A machine under
    load is no reason to leave events or letters for later."""
    for module in (time_limit, isolate, redrive):
        monkeypatch.setattr(module, "BRIDGE", SLOW)


@pytest.fixture
def positions_of_handlers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of a handler that waits ten minutes for a type."""
    settings.OUTBOX_UNKNOWN_TYPE_WAIT = 600
    monkeypatch.setattr(unknown_type, "_foreign_names", set())
    create_positions()
