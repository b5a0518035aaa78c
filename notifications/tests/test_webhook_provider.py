"""The webhook provider over real HTTP: what it sends, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from devtools.provider.client import ProviderProcess, provider_process
from devtools.provider.server import AnswerRule
from devtools.testing.processes import free_port
from notifications.providers.configured import read_providers
from notifications.providers.message import ProviderAnswer
from notifications.providers.retry_after import seconds_to_wait
from notifications.providers.webhook import Webhook
from notifications.tests.outgoing import message

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


KEY = b"k" * 32


SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


DEEP = f'{{"messageId": "m", "a": {"[" * 30_000}{"]" * 30_000}}}'
# Allowed in a header, and no text.
NO_TEXT = {"Date": "é", "Retry-After": "é"}


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with provider_process() as running:
        yield running


def send(url: str, *, timeout: float = 8.0, times: int = 1, **settings: Any) -> ProviderAnswer:
    """The last answer of several, over one connection."""

    async def calls() -> ProviderAnswer:
        read = read_providers(
            {"w": {"kind": "webhook", "url": url, "timeout": timeout, **settings}}, mail_domain="d"
        )
        webhook = Webhook("w", read["w"])
        try:
            for _ in range(times):
                answer = await webhook.send(message(), traceparent=TRACEPARENT)
            return answer
        finally:
            await webhook.close()

    return asyncio.run(calls())


class TestWebhook:
    def test_what_is_sent(self, provider: ProviderProcess) -> None:
        provider.rules()
        answer = send(provider.url, secret=SECRET, headers={"authorization": "Bearer x"})
        arrival = provider.arrivals()[-1]

        assert answer.verdict == "delivered"
        assert answer.message_id is not None
        assert json.loads(arrival.body) == {"to": "+15550001", "channel": "sms", "content": "Hello"}
        assert arrival.headers["idempotency-key"] == "n-1.2"
        assert arrival.headers["traceparent"] == TRACEPARENT
        assert arrival.headers["authorization"] == "Bearer x"
        assert arrival.headers["content-type"] == "application/json"
        # Standard Webhooks: no full stop in the id, since the signature has them between its parts.
        assert arrival.headers["webhook-id"] == "n-1_2"
        signed = f"n-1_2.{arrival.headers['webhook-timestamp']}.{arrival.body}".encode()
        digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert arrival.headers["webhook-signature"] == f"v1,{digest}"

    def test_without_a_secret_nothing_is_signed(self, provider: ProviderProcess) -> None:
        provider.rules()
        send(provider.url)
        assert not [name for name in provider.arrivals()[-1].headers if "webhook" in name]

    @pytest.mark.parametrize(
        ("rule", "verdict", "status"),
        [
            (AnswerRule(status=200, body=""), "delivered", 200),
            (AnswerRule(status=204, body=""), "delivered", 204),
            (AnswerRule(status=202, body="<html>garbage"), "delivered", 202),
            (AnswerRule(status=200, body='{"messageId": {"a": 1}}'), "delivered", 200),
            (AnswerRule(status=200, body="x" * 3_000_000), "delivered", 200),
            # Of which the beginning is read.
            (AnswerRule(body=json.dumps({"a": "x" * 100_000, "messageId": "m"})), "delivered", 200),
            (AnswerRule(status=200, do="cut_body"), "delivered", 200),
            (AnswerRule(status=200, body=DEEP), "delivered", 200),
            (AnswerRule(status=200, body=f'{{"messageId": {"7" * 9_000}}}'), "delivered", 200),
            (AnswerRule(status=200, body='{"messageId": "\\ud800"}'), "delivered", 200),
            (AnswerRule(status=201, body="", headers=NO_TEXT), "delivered", 201),
            (AnswerRule(status=302, headers={"Location": "/elsewhere"}), "failed", 302),
            (AnswerRule(status=307, headers={"Location": "/elsewhere"}), "failed", 307),
            (AnswerRule(status=400), "refused", 400),
            (AnswerRule(status=401), "failed", 401),
            (AnswerRule(status=403), "failed", 403),
            (AnswerRule(status=404), "refused", 404),
            (AnswerRule(status=407), "failed", 407),
            (AnswerRule(status=408), "failed", 408),
            (AnswerRule(status=422), "refused", 422),
            (AnswerRule(status=422, body=DEEP, headers=NO_TEXT), "refused", 422),
            (AnswerRule(status=500), "failed", 500),
            (AnswerRule(status=503), "failed", 503),
            (AnswerRule(status=503, body=DEEP, headers=NO_TEXT), "failed", 503),
            (AnswerRule(do="cut"), "failed", None),
        ],
        ids=lambda value: (
            f"{value.do}-{value.status}-{len(value.body or '')}"
            if isinstance(value, AnswerRule)
            else str(value)
        ),
    )
    def test_what_an_answer_means(
        self, rule: AnswerRule, verdict: str, status: int | None, provider: ProviderProcess
    ) -> None:
        before = len(provider.arrivals())
        provider.rules(rule)
        answer = send(provider.url)

        assert (answer.verdict, answer.status_code) == (verdict, status)
        assert answer.message_id is None
        assert (answer.error is None) == (verdict == "delivered")
        # One call: no redirect was followed, and nothing sent again.
        assert [arrival.path for arrival in provider.arrivals()[before:]] == ["/send"]

    def test_a_connection_that_is_cut_later_is_not_tried_again(
        self, provider: ProviderProcess
    ) -> None:
        """The second request goes over the first one's connection, which ends under it."""
        before = len(provider.arrivals())
        provider.rules(AnswerRule(times=1), AnswerRule(do="cut"))
        answer = send(provider.url, times=2)

        assert answer.verdict == "failed"
        assert len(provider.arrivals()) == before + 2

    @pytest.mark.parametrize(
        ("status", "headers", "seconds"),
        [
            (429, {"Retry-After": "60"}, 60.0),
            (429, {"Retry-After": "9999999"}, 300.0),
            (429, {"Retry-After": "0"}, 1.0),
            (429, {}, 5.0),
            (429, {"Retry-After": "soon"}, 5.0),
            (429, {"Retry-After": "é"}, 5.0),
            (429, {"Retry-After": "60", "Date": "é"}, 60.0),
            (503, {"Retry-After": "7"}, 7.0),
        ],
    )
    def test_who_asks_to_wait(
        self, status: int, headers: dict[str, str], seconds: float, provider: ProviderProcess
    ) -> None:
        provider.rules(AnswerRule(status=status, headers=headers))
        answer = send(provider.url)

        assert (answer.verdict, answer.hold_seconds) == ("held", seconds)

    def test_a_date_is_taken_by_the_clock_of_the_provider(self, provider: ProviderProcess) -> None:
        theirs = datetime.now(UTC) - timedelta(days=3)
        headers = {
            "Date": format_datetime(theirs, usegmt=True),
            "Retry-After": format_datetime(theirs + timedelta(seconds=45), usegmt=True),
        }
        provider.rules(AnswerRule(status=429, headers=headers))

        assert send(provider.url).hold_seconds == 45.0

    @pytest.mark.parametrize("do", ["hang", "answer"])
    def test_the_timeout_is_for_all_of_it(self, do: str, provider: ProviderProcess) -> None:
        provider.rules(AnswerRule(do=do, after=5))
        answer = send(provider.url, timeout=0.2)

        assert (answer.verdict, answer.error) == ("failed", "The provider gave no answer in 0.2 s.")

    def test_nobody_listens(self) -> None:
        answer = send(f"http://127.0.0.1:{free_port()}/")

        assert answer.verdict == "failed"
        assert "127.0.0.1" not in str(answer.error)  # addresses may hold a secret


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", None, 120.0),
        (" 3 ", None, 3.0),
        ("-5", None, None),
        ("1.5", None, None),
        ("٣", None, None),
        ("", None, None),
        (None, None, None),
        ("Mon, 30 Nov 2026 12:01:00 GMT", None, 60.0),
        ("Mon, 30 Nov 2026 12:01:00 GMT", "nonsense", 60.0),
        ("Mon, 30 Nov 2026 12:01:00 GMT", "Mon, 30 Nov 2026 12:00:50 GMT", 10.0),
        ("Mon, 30 Nov 2026 11:00:00 GMT", None, 1.0),
        ("Mon, 30 Nov 9999 12:00:00 GMT", None, 300.0),
        ("9" * 400, None, 300.0),
    ],
)
def test_retry_after(value: str | None, date: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(value, date=date, now=NOW) == seconds
