"""What stands in a path beside Django's own `str`, `int` and `path`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from django.urls.converters import StringConverter

__all__ = ["AnyText", "is_path_text"]

REPLACEMENT = "\ufffd"


class AnyText(StringConverter):
    """`<text:user_id>`: whatever stands there, slashes and line ends too, for the view to refuse in
    words."""

    regex = "(?s:.+)"


def is_path_text(part: str, scope: Mapping[str, Any]) -> bool:
    """Whether a decoded part of this scope's path is what was sent. Bytes that are not UTF-8 have become
    U+FFFD: an id with it would be that of somebody else."""
    if REPLACEMENT not in part:
        return True
    try:
        unquote_to_bytes(scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
