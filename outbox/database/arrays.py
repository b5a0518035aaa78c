"""Array literals of PostgreSQL, for parameters with a cast: `%s::uuid[]`.

psycopg's own dumper looks at every element several times, in Python; for a batch of orders that
costs more than everything else that is done for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["array_literal", "text_array_literal"]


def array_literal(values: Iterable[object]) -> str:
    """Of values whose text has no character that means something in a literal, and is not empty:
    numbers, UUIDs, times in RFC 3339."""
    return f"{{{','.join(map(str, values))}}}"


def text_array_literal(texts: Sequence[str]) -> str:
    """Of any text."""
    if not texts:
        return "{}"
    # All at once, held apart by what no text of PostgreSQL has: four passes over one long text are
    # a third of two over each short one.
    whole = _APART.join(texts)
    if whole.count(_APART) != len(texts) - 1:
        raise ValueError("A text has a NUL character, which PostgreSQL cannot store.")
    escaped = whole.replace("\\", "\\\\").replace('"', '\\"').replace(_APART, '","')
    return f'{{"{escaped}"}}'


_APART = "\0"
