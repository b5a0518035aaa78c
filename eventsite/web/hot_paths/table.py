"""Finding the hot path of a request line: an exact match, or a match with an id in place of
`{id}`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["ID", "Table"]

ID = "{id}"

Found = TypeVar("Found")


class Table(Generic[Found]):
    """Paths with at most one `{id}` each, as a whole segment."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], Found] = {}
        # Method and path -> the path with any segment as its id, which ids are sure, what is found.
        self._with_id: dict[tuple[str, str], tuple[re.Pattern[str], re.Pattern[str], Found]] = {}

    def add(self, method: str, path: str, ids: re.Pattern[str] | None, found: Found) -> None:
        """`ids`: which are sure. Raises ValueError for a path that could match the same request as another."""
        has_id = "{" in path
        if has_id and (ids is None or path.count("{") > 1 or ID not in path.split("/")):
            raise ValueError(
                f"{method} {path}: only one whole segment can be {ID}, and none in a HotConstant"
            )
        for other_method, other in self._with_id if has_id else self._exact:
            if other_method == method and _overlap(path, other):
                raise ValueError(f"{method} {path}: a request could also match {other}")
        if ids is not None and has_id:
            shape = re.compile("([^/]*)".join(map(re.escape, path.split(ID))))
            self._with_id[method, path] = shape, ids, found
        else:
            self._exact[method, path] = found

    def find(self, method: str, path: str) -> tuple[Found, str] | None:
        """The path that this request line matches, and its id ("" without one)."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, ""
        for (known_method, _), (shape, ids, found) in self._with_id.items():
            match = shape.fullmatch(path) if known_method == method else None
            if match is not None and ids.fullmatch(match[1]):
                return found, match[1]
        return None

    def all(self) -> Iterator[Found]:
        yield from self._exact.values()
        yield from (found for *_, found in self._with_id.values())


def _overlap(one: str, other: str) -> bool:
    parts, others = one.split("/"), other.split("/")
    if len(parts) != len(others):
        return False
    return all(a == b or ID in (a, b) for a, b in zip(parts, others, strict=True))
