"""Which path a request line is."""

from __future__ import annotations

import re

import pytest

from eventsite.web.hot_paths.table import Table

NUMBER = re.compile("[0-9]+")


def table(*paths: str) -> Table[str]:
    made: Table[str] = Table()
    for path in paths:
        made.add("GET", path, NUMBER, path)
    return made


PATHS = ("/things", "/things/{id}", "/things/{id}/pay", "/api/v1/notes/{id}/cancel", "/{id}")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/things", ("/things", "")),
        ("/things/7", ("/things/{id}", "7")),
        ("/things/7/pay", ("/things/{id}/pay", "7")),
        ("/api/v1/notes/7/cancel", ("/api/v1/notes/{id}/cancel", "7")),
        ("/7", ("/{id}", "7")),
        *((path, None) for path in ("", "/", "7", "/things/", "/things/x", "/things/7/", "//7")),
        *(
            (path, None)
            for path in ("/things/7/8", "/things/x/pay", "/things/{id}", "/things/7/{id}")
        ),
        *(
            (path, None)
            for path in ("/api/v1/7/notes/cancel", "/api/v1/notes/cancel", "/things/7\n")
        ),
    ],
)
def test_a_path_is_found_with_its_id(path: str, found: tuple[str, str] | None) -> None:
    assert table(*PATHS).find("GET", path) == found
    assert table(*PATHS[::-1]).find("GET", path) == found
    assert table(*PATHS).find("POST", path) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/things/x{id}", "one whole segment"),
        ("/things/{ID}", "one whole segment"),
        ("/things/{id}/{id}", "one whole segment"),
        ("/things/{id}", "could also match"),
        ("/things/{id}/pay", "could also match"),
        ("/{id}/7", "could also match"),
        ("/{id}/x/pay", "could also match"),
        ("/things", "could also match"),
    ],
)
def test_what_could_not_be_told_apart_is_refused(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        table("/things", "/things/{id}", "/things/{id}/pay", path)


def test_a_constant_has_no_id() -> None:
    made: Table[str] = Table()
    with pytest.raises(ValueError, match="none in a HotConstant"):
        made.add("GET", "/things/{id}", None, "")
