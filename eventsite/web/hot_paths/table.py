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
        self._with_id: dict[tuple[str, str], tuple[re.Pattern[str], Found]] = {}
        self._places: list[int] = []  # segments in which ids stand

    def add(self, method: str, path: str, ids: re.Pattern[str] | None, found: Found) -> None:
        """`ids`: which are sure. Raises ValueError for a path that could match the same request as another."""
        place = _place_of(path, method, ids)
        key = method, path
        if key in self._exact or key in self._with_id:
            raise ValueError(f"{method} {path}: is declared twice")
        if place is None or ids is None:
            self._exact[key] = found
            return
        for other_method, other in self._with_id:
            if other_method == method and _overlap(path, other):
                raise ValueError(f"{method} {path}: a request could also match {other}")
        self._with_id[key] = ids, found
        if place not in self._places:
            self._places.append(place)

    def find(self, method: str, path: str) -> tuple[Found, str] | None:
        """The path that this request line matches, and its id ("" without one)."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, ""
        parts = path.split("/")
        for place in self._places:
            if place < len(parts):
                id_, parts[place] = parts[place], ID
                known = self._with_id.get((method, "/".join(parts)))
                if known is not None and known[0].fullmatch(id_):
                    return known[1], id_
                parts[place] = id_
        return None

    def all(self) -> Iterator[Found]:
        yield from self._exact.values()
        yield from (found for _, found in self._with_id.values())


def _place_of(path: str, method: str, ids: re.Pattern[str] | None) -> int | None:
    parts = path.split("/")
    given = [place for place, part in enumerate(parts) if "{" in part]
    if not given:
        return None
    if ids is None or len(given) > 1 or parts[given[0]] != ID:
        raise ValueError(
            f"{method} {path}: only one whole segment can be {ID}, and none in a HotConstant"
        )
    return given[0]


def _overlap(one: str, other: str) -> bool:
    """Whether a request line can be of both."""
    parts, others = one.split("/"), other.split("/")
    if len(parts) != len(others):
        return False
    return all(a == b or ID in (a, b) for a, b in zip(parts, others, strict=True))
