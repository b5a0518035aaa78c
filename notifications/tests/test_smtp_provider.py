"""The SMTP provider with a real mail server: what it sends, and what each answer means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.testing.mail_server import MailServer, mail_server
from devtools.testing.processes import free_port
from notifications.providers.configured import read_providers
from notifications.providers.message import OutgoingText, ProviderAnswer
from notifications.providers.smtp import Smtp, subject_of
from notifications.tests.outgoing import message


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
