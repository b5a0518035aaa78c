"""Cursors of lists: where the next page begins, as a text for a URL."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from drf_spectacular.drainage import set_override
from rest_framework import serializers

__all__ = ["CursorField", "from_base64url", "to_base64url"]


def to_base64url(data: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_base64url(text: str) -> bytes:
    """The inverse. Raises ValueError for anything that it does not write."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    # b64decode also takes + and /, padding, and bits beyond the last byte.
    if to_base64url(data) != text:
        raise ValueError("not as it was written")
    return data


class CursorField(serializers.CharField):
    """A query parameter that a page has named for the next one.

    read     text -> value; raises ValueError
    wrong    the error for a text that it does not read
    pattern  of all that it reads (ECMA 262), for the API's document
    """

    def __init__(
        self, read: Callable[[str], Any], *, wrong: str, pattern: str, **kwargs: Any
    ) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.read, self.wrong = read, wrong
        longest = {"maxLength": self.max_length} if self.max_length else {}
        set_override(self, "field", {"type": "string", "pattern": pattern, **longest})

    def to_internal_value(self, data: Any) -> Any:
        try:
            return self.read(super().to_internal_value(data))
        except ValueError:
            raise serializers.ValidationError(self.wrong) from None
