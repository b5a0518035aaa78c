"""Payloads for people who look for an error: what is a secret is not shown."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["HIDDEN", "masked"]

HIDDEN = "•••"
SHOWN = 20_000  # characters
_NAMES = re.compile(
    r"^pass$|pass(word|wd|phrase|code)|secret|token|auth(orization)?$|credential|api[-_]?key|private[-_]?key"
    r"|signature|cookie|session[-_]?id|card[-_]?number|^(pan|cvc|cvv|pin|otp|iban|ssn)$",
    re.IGNORECASE,
)
# In any text: a scheme of HTTP with what follows it, a JSON Web Token, a password in a URL, and what
# stands behind a name as above, up to its closing quote where it has one. Each begins at the begin of a word and
# has a bound: a long text of anybody's costs what it is long.
_IN_TEXT = (
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[\w-]{8,1000}\.[\w-]{8,4000}\.[\w-]*"), HIDDEN),
    (re.compile(r"\b(\w{1,20}://[^/\s:@]{0,100}):[^/\s@]{1,200}@"), rf"\1:{HIDDEN}@"),
    (
        re.compile(
            r"(?<![\w-])([\w-]{0,30}?(?:pass(?:word|wd|phrase|code)|secret|token|credentials?|api[-_]?key"
            r"|private[-_]?key|signature|cookie|session[-_]?id|card[-_]?number|authorization)"
            r"(?:\\?\")?\s{0,5}[=:]\s{0,5})"
            r"(?:(\\?\")(?!\2)(?:(?!\2).){1,2000}|(?!null\b|[{\[])[^\s\"\\&,;}]+)",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1\2{HIDDEN}",
    ),
)


def masked(text: str) -> str:
    """A payload, an error or a header, without its secrets: JSON with its keys one a line, any other
    text as it is; SHOWN characters at most."""
    text = _within(text, indent=2)
    # What is cut off before is never shown, so no secret loses the begin that it is known by.
    shown = _text(text[: 2 * SHOWN])
    if len(text) <= SHOWN:
        return shown
    return f"{shown[:SHOWN]}\n… of {len(text):,} characters"


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: HIDDEN if _NAMES.search(key) and each not in (None, "") else _value(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return _within(value)
    return value


def _within(text: str, indent: int | None = None) -> str:
    """A text that is JSON itself, as bodies are that somebody has put into others; any other as it is."""
    try:
        value = json.loads(text)
        if isinstance(value, dict | list):
            return json.dumps(_value(value), ensure_ascii=False, indent=indent)
    except (ValueError, RecursionError):
        pass
    return text


def _text(text: str) -> str:
    for pattern, hidden in _IN_TEXT:
        text = pattern.sub(hidden, text)
    return text
