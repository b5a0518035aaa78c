"""Array literals of PostgreSQL, for parameters with a cast: `%s::uuid[]`.

psycopg's own dumper looks at every element several times, in Python; for a batch of orders that
costs more than everything else that is done for them.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["array_literal", "text_array_literal"]


def array_literal(values: Iterable[object]) -> str:
    """Of values whose text has no character that means something in a literal, and is not empty:
    numbers, UUIDs, times in RFC 3339."""
    return f"{{{','.join(map(str, values))}}}"


def text_array_literal(texts: Iterable[str]) -> str:
    """Of any text."""
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(escaped) + '"}' if escaped else "{}"
