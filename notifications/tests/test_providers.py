"""Providers as they are configured: what is refused at the start, and what the log of one never has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog import BoundLogger, wrap_logger
from structlog.testing import CapturingLogger

from notifications.providers import log
from notifications.providers.configured import read_providers
from notifications.providers.message import ProviderError
from notifications.tests.outgoing import message


def test_a_line_in_the_log_has_neither_recipient_nor_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = CapturingLogger()  # whatever level the tests log from
    monkeypatch.setattr(log, "log", wrap_logger(lines, processors=[], wrapper_class=BoundLogger))
    read = read_providers({"l": {"kind": "log"}}, mail_domain="d")
    answer = asyncio.run(log.Log("l", read["l"]).send(message(), traceparent=""))
    [call] = lines.calls
    line = call.kwargs
    assert answer.verdict == "delivered"
    assert (line["provider"], line["notification_id"], line["channel"]) == ("l", "n-1", "sms")
    assert message().recipient not in str(line)
    assert message().content not in str(line)


@pytest.mark.parametrize(
    "given",
    [
        {"": {"kind": "log"}},
        {"a:b": {"kind": "log"}},
        {"a": {"kind": "pigeon"}},
        {"a": {}},
        {"a": {"kind": "webhook"}},
        {"a": {"kind": "webhook", "url": "ftp://example.org"}},
        {"a": {"kind": "webhook", "url": "http://example.org", "secret": "whsec_short"}},
        {"a": {"kind": "webhook", "url": "http://example.org", "channels": ["fax"]}},
        {"a": {"kind": "webhook", "url": "http://example.org", "channels": []}},
        {"a": {"kind": "webhook", "url": "http://example.org", "timeout": 60}},
        {"a": {"kind": "webhook", "url": "http://example.org", "in_flight": 0}},
        {"a": {"kind": "webhook", "url": "http://example.org", "colour": "red"}},
        {"a": {"kind": "smtp", "url": "smtp://example.org"}},
        {"a": {"kind": "smtp", "url": "smtp://x", "sender": "a@b", "channels": ["sms"]}},
    ],
    ids=str,
)
def test_what_cannot_be_a_provider(given: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ProviderError):
        read_providers(given, mail_domain="d")


def test_the_error_names_no_secret() -> None:
    given = {"a": {"kind": "webhook", "url": "http://example.org", "secret": "whsec_hush"}}
    with pytest.raises(ProviderError) as caught:
        read_providers(given, mail_domain="d")
    assert "hush" not in str(caught.value)
