"""The gateway as the settings want it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventsite.web.gateway.access_log import Call
from eventsite.web.gateway.asgi_types import Receive, Scope, Send
from eventsite.web.gateway.ids import request_ids
from eventsite.web.gateway.wiring import gateway_around


async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody asks")


def test_the_end_of_the_process_writes_what_the_access_log_keeps(
    settings: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    settings.LOG_LEVEL = "INFO"

    async def end() -> None:
        assembled = gateway_around(nobody)
        for _ in range(2):
            call = Call("/health", "health", "c", request_ids({}))
            assembled.parts.access_log.note(call, method="GET", status=200, seconds=0.001)
        assert not capfd.readouterr().err
        await assembled.close()
        assert len(capfd.readouterr().err.splitlines()) == 2

    asyncio.run(end())
