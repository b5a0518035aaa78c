"""Providers: what each answer means, over real HTTP and SMTP."""

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
from structlog import BoundLogger, wrap_logger
from structlog.testing import CapturingLogger

from devtools.provider.client import ProviderProcess, provider_process
from devtools.provider.server import AnswerRule
from devtools.testing.mail_server import MailServer, mail_server
from devtools.testing.processes import free_port
from notifications.providers import log
from notifications.providers.configured import read_providers
from notifications.providers.message import OutgoingText, ProviderAnswer, ProviderError
from notifications.providers.retry_after import seconds_to_wait
from notifications.providers.smtp import Smtp, subject_of
from notifications.providers.webhook import Webhook

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
KEY = b"k" * 32
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with provider_process() as running:
        yield running


def message(**changes: str) -> OutgoingText:
    given = {
        "id": "n-1",
        "idempotency_key": "n-1.2",
        "recipient": "+15550001",
        "channel": "sms",
        "content": "Hello",
    }
    return OutgoingText(**{**given, **changes})


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
            (AnswerRule(status=302, headers={"Location": "/elsewhere"}), "failed", 302),
            (AnswerRule(status=307, headers={"Location": "/elsewhere"}), "failed", 307),
            (AnswerRule(status=400), "refused", 400),
            (AnswerRule(status=401), "failed", 401),
            (AnswerRule(status=403), "failed", 403),
            (AnswerRule(status=404), "refused", 404),
            (AnswerRule(status=407), "failed", 407),
            (AnswerRule(status=408), "failed", 408),
            (AnswerRule(status=422), "refused", 422),
            (AnswerRule(status=500), "failed", 500),
            (AnswerRule(status=503), "failed", 503),
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


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


def mail_to(mail: MailServer, *messages: OutgoingText, **settings: Any) -> list[ProviderAnswer]:
    """All at once."""

    async def calls() -> list[ProviderAnswer]:
        given = {
            "kind": "smtp",
            "url": f"smtp://127.0.0.1:{mail.port}",
            "sender": "us@example.org",
            "timeout": 8.0,
            **settings,
        }
        smtp = Smtp("m", read_providers({"m": given}, mail_domain="mail.example.org")["m"])
        try:
            return list(
                await asyncio.gather(*(smtp.send(each, traceparent="") for each in messages))
            )
        finally:
            await smtp.close()

    return asyncio.run(calls())


class TestSmtp:
    letter = message(channel="email", recipient="them@example.net", content="Hi\nthere")

    def test_what_is_sent(self, mail: MailServer) -> None:
        [answer] = mail_to(mail, self.letter)
        [sent] = mail.mails

        assert answer.verdict == "delivered"
        assert sent.recipients == ("them@example.net",)
        assert "Message-ID: <n-1.2@mail.example.org>\r\n" in sent.text
        assert "Subject: Hi\r\n" in sent.text
        assert sent.text.endswith("\r\nHi\r\nthere\r\n")

    def test_no_header_gets_in_by_the_subject(self, mail: MailServer) -> None:
        bad = message(
            channel="email", recipient="them@example.net", title="Order\r\nBcc: all@example.net"
        )
        [answer] = mail_to(mail, bad)

        assert answer.verdict == "delivered"
        assert "Subject: Order Bcc: all@example.net\r\n" in mail.mails[0].text

    @pytest.mark.parametrize(
        ("title", "content", "subject"),
        [
            ("Welcome", "text", "Welcome"),
            ("", "\n \n first\nsecond", "first"),
            ("", "a\u2028b", "a"),
            ("x" * 500, "", "x" * 200),
        ],
    )
    def test_the_subject(self, title: str, content: str, subject: str) -> None:
        assert subject_of(message(title=title, content=content)) == subject

    @pytest.mark.parametrize(
        ("replies", "verdict", "code"),
        [
            ({"RCPT": "550 no such user"}, "refused", 550),
            ({"RCPT": "450 later"}, "failed", 450),
            ({"BODY": "554 spam"}, "refused", 554),
            ({"BODY": "451 later"}, "failed", 451),
            ({"MAIL": "550 not you"}, "failed", 550),
            ({"CONNECT": "554 no service"}, "failed", 554),
            ({"CONNECT": "421 too busy"}, "failed", 421),
        ],
        ids=str,
    )
    def test_what_a_reply_means(
        self, replies: dict[str, str], verdict: str, code: int, mail: MailServer
    ) -> None:
        mail.replies = replies
        [answer] = mail_to(mail, self.letter)

        assert (answer.verdict, answer.status_code) == (verdict, code)
        assert not mail.mails

    def test_after_an_error_the_next_mail_goes(self, mail: MailServer) -> None:
        async def calls() -> list[str]:
            given = {
                "kind": "smtp",
                "url": f"smtp://127.0.0.1:{mail.port}",
                "sender": "us@example.org",
                "connections": 1,
            }
            smtp = Smtp("m", read_providers({"m": given}, mail_domain="d")["m"])
            found = []
            for reply in ("550 no", "250 yes"):
                mail.replies = {"RCPT": reply}
                found.append((await smtp.send(self.letter, traceparent="")).verdict)
            await smtp.close()
            return found

        assert asyncio.run(calls()) == ["refused", "delivered"]

    def test_connections_are_bounded_and_used_again(self, mail: MailServer) -> None:
        answers = mail_to(mail, *[self.letter] * 40, connections=3)

        assert {answer.verdict for answer in answers} == {"delivered"}
        assert len(mail.mails) == 40
        assert mail.connections <= 3

    @pytest.mark.parametrize("verb", ["CONNECT", "RCPT", "BODY"])
    def test_a_server_that_hangs(self, verb: str, mail: MailServer) -> None:
        mail.hangs = {verb}
        [answer] = mail_to(mail, self.letter, timeout=0.3)

        assert answer.verdict == "failed"

    def test_a_server_that_drips(self, mail: MailServer) -> None:
        """Each byte comes in time; the whole does not."""
        mail.drips = 0.1
        [answer] = mail_to(mail, self.letter, timeout=0.4)

        assert (answer.verdict, answer.error) == (
            "failed",
            "The mail server was not done in 0.4 s.",
        )

    @pytest.mark.parametrize("verb", ["CONNECT", "AUTH"])
    def test_what_has_failed_is_not_sent_later(self, verb: str, mail: MailServer) -> None:
        """The connection becomes ready when the time for the mail is over."""
        mail.replies = {"EHLO": "250-test\r\n250 AUTH PLAIN", "AUTH": "235 yes"}
        mail.drips, mail.slow = 0.1, {verb}
        url = f"smtp://me:secret@127.0.0.1:{mail.port}"
        read = read_providers(
            {"m": {"kind": "smtp", "url": url, "sender": "us@example.org", "timeout": 0.4}},
            mail_domain="d",
        )
        smtp = Smtp("m", read["m"])
        answer = asyncio.run(smtp.send(self.letter, traceparent=""))
        smtp._threads.shutdown(wait=True)

        assert answer.verdict == "failed"
        assert mail.mails == []

    def test_no_more_is_in_flight_than_there_are_connections(self) -> None:
        given = {"kind": "smtp", "url": "smtp://x", "sender": "a@b", "connections": 3}
        found = read_providers({"a": given, "b": {**given, "in_flight": 2}}, mail_domain="d")
        assert [each.in_flight for each in found.values()] == [3, 2]

    def test_nobody_listens(self) -> None:
        [answer] = mail_to(MailServer(port=free_port()), self.letter)
        assert answer.verdict == "failed"


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
