"""E-mail over SMTP: Django's backend, on a bounded number of threads with a connection each."""

from __future__ import annotations

import asyncio
import re
import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.errors import HeaderParseError
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from notifications.providers import message as words
from notifications.providers.message import OutgoingText, ProviderAnswer

__all__ = ["Smtp", "subject_of"]

SUBJECT_LENGTH = 200
_IDLE = 1.0  # seconds of grace for a thread whose socket was shut down
_BREAKS = re.compile(r"[\r\n\v\f\x00-\x1f\x7f\x85\u2028\u2029]+")


class SmtpSettings(words.Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url          smtp://user:password@host:port, smtps:// for TLS from the first byte;
                 ?starttls=yes asks for it later
    sender       address that it comes from
    domain       of the Message-ID; by default that of MAIL_DOMAIN
    connections  threads, each with a connection of its own; no more are in flight at a time, so that
                 nothing waits for a connection while its timeout runs
    """

    url: str
    sender: str
    domain: str = ""
    connections: int = 4
    channels: tuple[str, ...] = ("email",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != ("email",):
            raise ValueError("smtp can serve only the channel email")
        parts = urlsplit(self.url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("url must be an smtp or smtps address")
        if not 1 <= self.connections <= 50:
            raise ValueError("connections must be a number from 1 to 50")
        msgspec.structs.force_setattr(self, "in_flight", min(self.in_flight, self.connections))


class Smtp:
    """One message at a time on each connection. A deadline of its own ends what SMTP's timeouts, which
    hold for each answer, would let go on."""

    Settings: ClassVar[type[words.Settings]] = SmtpSettings

    def __init__(self, name: str, settings: Any) -> None:
        self._settings: SmtpSettings = settings
        self._threads = ThreadPoolExecutor(settings.connections, thread_name_prefix=f"smtp-{name}")
        self._free = asyncio.Semaphore(settings.connections)
        self._local = threading.local()
        self._open: set[EmailBackend] = set()

    async def send(self, message: OutgoingText, *, traceparent: str) -> ProviderAnswer:
        del traceparent  # a mail has no trace
        loop = asyncio.get_running_loop()
        until = time.monotonic() + self._settings.timeout
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._free.acquire()
        except TimeoutError:
            return ProviderAnswer(
                verdict=words.FAILED, error="No connection to the mail server was free."
            )
        started = _Started(until)
        future = loop.run_in_executor(self._threads, self._send, message, started)
        future.add_done_callback(lambda _: self._free.release())
        done, _ = await asyncio.wait([future], timeout=max(0.0, until - time.monotonic()))
        if done:
            return future.result()
        started.cut()
        # The thread ends by the error of its socket, or before it sends. The server's last word may have
        # come in the same moment: what it has taken is not sent again.
        done, _ = await asyncio.wait([future], timeout=_IDLE)
        if done and (answer := future.result()).verdict == words.DELIVERED:
            return answer
        return ProviderAnswer(
            verdict=words.FAILED,
            error=f"The mail server was not done in {self._settings.timeout:g} s.",
        )

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for backend in list(self._open):
            with suppress(OSError, smtplib.SMTPException):
                backend.close()

    def _send(self, message: OutgoingText, started: _Started) -> ProviderAnswer:
        """On a thread: the whole of one message."""
        try:
            backend = self._connected(started)
            if started.is_over():
                raise TimeoutError("The time limit was over before the message was sent.")
            backend.send_messages([self._mail(message)])
        except Exception as error:  # noqa: BLE001  (each is an answer; the connection is not used again)
            self._drop()
            return answer_of_error(error)
        finally:
            started.backend = None
        return ProviderAnswer(verdict=words.DELIVERED, status_code=250)

    def _connected(self, started: _Started) -> EmailBackend:
        """The thread's connection, if the server still answers on it; else a new one."""
        backend: EmailBackend | None = getattr(self._local, "backend", None)
        if backend is not None:
            started.backend = backend
            try:
                server = backend.connection
                alive = server is not None and server.noop()[0] == 250
            except (smtplib.SMTPException, OSError):
                alive = False
            if alive:
                return backend
            self._drop()
        backend = self._backend()
        self._local.backend = started.backend = backend
        self._open.add(backend)
        backend.open()
        return backend

    def _backend(self) -> EmailBackend:
        parts = urlsplit(self._settings.url)
        starttls = parse_qs(parts.query).get("starttls", ["no"])[0] == "yes"
        return EmailBackend(
            host=parts.hostname,
            port=parts.port or (465 if parts.scheme == "smtps" else 25),
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            use_ssl=parts.scheme == "smtps",
            use_tls=starttls,
            timeout=self._settings.timeout,
            fail_silently=False,
        )

    def _drop(self) -> None:
        backend: EmailBackend | None = getattr(self._local, "backend", None)
        self._local.backend = None
        if backend is not None:
            self._open.discard(backend)
            with suppress(OSError, smtplib.SMTPException):
                backend.close()

    def _mail(self, message: OutgoingText) -> EmailMessage:
        return EmailMessage(
            subject=subject_of(message),
            body=message.content,
            from_email=self._settings.sender,
            to=[message.recipient],
            headers={"Message-ID": f"<{message.idempotency_key}@{self._settings.domain}>"},
        )


class _Started:
    """What a thread is at, so that it can be cut off. `until`, of time.monotonic(): it sends nothing
    from then on, however late the process comes to look at it."""

    def __init__(self, until: float) -> None:
        self.backend: EmailBackend | None = None
        self._until = until
        self._cut = False

    def is_over(self) -> bool:
        """Asked when there is a connection, before anything of the message is sent."""
        return self._cut or time.monotonic() >= self._until

    def cut(self) -> None:
        """Shut the socket down: a thread that reads from it gets an error. The mark comes
        first: a thread whose connection is not there yet finds that when it is."""
        self._cut = True
        backend = self.backend
        # Until the login is done, Django has it under the first name.
        for name in ("_partial_connection", "connection"):
            sock = getattr(getattr(backend, name, None), "sock", None)
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


def subject_of(message: OutgoingText) -> str:
    """The template's name, or the first line of the text; no line break gets into a header."""
    first = next((line for line in message.content.splitlines() if line.strip()), "")
    return _BREAKS.sub(" ", message.title or first).strip()[:SUBJECT_LENGTH]


def answer_of_error(error: Exception) -> ProviderAnswer:
    """5xx about the one recipient, or about this message: never. All else: not this time."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(error.recipients.values()))
        return _answer(code, text, never=code >= 500)
    if isinstance(error, smtplib.SMTPDataError):
        return _answer(error.smtp_code, error.smtp_error, never=error.smtp_code >= 500)
    if isinstance(error, smtplib.SMTPResponseException):  # greeting, login, sender
        return _answer(error.smtp_code, error.smtp_error, never=False)
    if isinstance(error, UnicodeError | HeaderParseError | ValueError):
        # The mail cannot be written: an address in another script at a server without SMTPUTF8.
        return ProviderAnswer(
            verdict=words.REFUSED, error=f"The mail cannot be written: {_text(error)}"
        )
    return ProviderAnswer(
        verdict=words.FAILED,
        error=f"The mail server could not be reached: {type(error).__name__}: {_text(error)}",
    )


def _answer(code: int, text: bytes | str, *, never: bool) -> ProviderAnswer:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return ProviderAnswer(
        verdict=words.REFUSED if never else words.FAILED,
        status_code=code,
        error=f"The mail server said {code} {_BREAKS.sub(' ', said)}"[: words.ERROR_LENGTH],
    )


def _text(error: Exception) -> str:
    return _BREAKS.sub(" ", str(error))[: words.ERROR_LENGTH]
