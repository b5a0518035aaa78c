"""Whom a notification may go to, by channel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from email_validator import SPECIAL_USE_DOMAIN_NAMES as SPECIAL
from email_validator import EmailNotValidError, validate_email

from notifications.models import Channel

__all__ = ["E_164", "LONGEST_TOKEN", "RECIPIENT_CHECKS", "is_plain_address"]

E_164 = re.compile(r"\+[1-9][0-9]{6,14}")
# Bytes: an index holds the whole of it.
LONGEST_TOKEN = 2048
_NO_ADDRESS = "Must be an e-mail address."
# What nearly all addresses look like. A shortcut: the library takes all of these, and takes fifty
# microseconds for it (notifications/tests/test_recipients.py).
_PLAIN = re.compile(
    r"(?=.{6,200}\Z)(?=[^@]{1,64}@)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.){1,4}([A-Za-z]{2,20})",
    re.ASCII,
)
_LONGEST_LABEL = 63


def is_plain_address(text: str) -> bool:
    """Whether it is surely one."""
    match = _PLAIN.fullmatch(text)
    if match is None or match[1].lower() in SPECIAL:
        return False
    return max(map(len, text.partition("@")[2].split("."))) <= _LONGEST_LABEL


def _sms(text: str) -> str | None:
    if E_164.fullmatch(text):
        return None
    return "Must be a number in E.164, like +905000000000."


def _email(text: str) -> str | None:
    """Its syntax alone: no DNS is asked. A local part that is not ASCII needs SMTPUTF8 on every
    server on the way, and most do not support it."""
    if is_plain_address(text):
        return None
    try:
        validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return _NO_ADDRESS
    return None


def _push(text: str) -> str | None:
    if len(text.encode()) > LONGEST_TOKEN:
        return f"Must have at most {LONGEST_TOKEN} bytes."
    return None


# Channel -> what is wrong with a text as a recipient of it; None: nothing.
RECIPIENT_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    Channel.SMS: _sms,
    Channel.EMAIL: _email,
    Channel.PUSH: _push,
}
