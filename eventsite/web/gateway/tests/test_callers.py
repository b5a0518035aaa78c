"""Whose address counts."""

from __future__ import annotations

import pytest

from eventsite.web.gateway.callers import client_address

PEER = ("10.0.0.1", 4711)


@pytest.mark.parametrize(
    ("forwarded", "proxies", "expected"),
    [
        ("1.2.3.4", 0, "10.0.0.1"),  # nobody in front: it is a client's invention
        ("1.2.3.4", 1, "1.2.3.4"),
        ("9.9.9.9, 1.2.3.4", 1, "1.2.3.4"),  # the first entry is an invention
        ("9.9.9.9, 1.2.3.4, 10.0.0.9", 2, "1.2.3.4"),
        ("1.2.3.4", 2, "10.0.0.1"),  # it did not come through both
        ("", 1, "10.0.0.1"),
        ("nonsense", 1, "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", 1, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", 1, "2001:db8:1:2::/64"),
        ("::ffff:1.2.3.4", 1, "1.2.3.4"),
    ],
)
def test_client_address(forwarded: str, proxies: int, expected: str) -> None:
    found = {b"x-forwarded-for": forwarded.encode()}
    assert client_address({"client": PEER}, found, proxies=proxies) == expected


def test_without_the_header_or_a_peer() -> None:
    assert client_address({"client": PEER}, {}, proxies=1) == "10.0.0.1"
    assert client_address({"client": None}, {}, proxies=0) == ""
