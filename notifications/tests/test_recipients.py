"""Whom a notification may go to: the shortcut takes nothing that the library refuses."""

from __future__ import annotations

import pytest
from email_validator import validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from notifications.api.recipients import LONGEST_TOKEN, RECIPIENT_CHECKS, is_plain_address
from notifications.models import Channel

labels = st.text(alphabet="aZ09-_", min_size=1, max_size=65)
local_parts = st.lists(st.text(alphabet="aZ0_+-!'\"é", min_size=0, max_size=66), min_size=1)
addresses = st.builds(
    lambda local, domain, top: f"{'.'.join(local)}@{'.'.join([*domain, top])}",
    local_parts,
    st.lists(labels, max_size=5),
    st.sampled_from(["com", "x", "io", "test", "LOCAL", "onion", "123", "c0m", "a-b", "a" * 21]),
)


@given(addresses)
@example("a@" + "b" * 64 + ".com")
@example("a" * 65 + "@b.com")
@example("a@x.test")
@example("a@ab--cd.com")
@example("a@b-.com")
@example("a.@b.com")
@example("a@b.com\n")
def test_what_the_shortcut_takes_the_library_takes(address: str) -> None:
    if is_plain_address(address):
        validate_email(address, check_deliverability=False, allow_smtputf8=False, strict=True)


def test_the_shortcut_takes_what_nearly_all_send() -> None:
    for address in ("ann@example.com", "a.b+c_d-e@mail.co.uk", "A1@X-Y.org"):
        assert is_plain_address(address), address


NO_RECIPIENTS: list[tuple[Channel, str]] = [
    *((Channel.SMS, text) for text in (
        "905000000000", "+0905000000", "+123456", "+1234567890123456", "+90 500 000 0000", "+9050x",
        "+٩٠٥٠٠٠٠٠٠٠", "+905000000000\n", " +905000000000", "a@b.com", "00905000000000",
    )),
    *((Channel.EMAIL, text) for text in (
        "ann", "@b.com", "a@", "a@b", "a@@b.com", "a b@c.com", "Ann <a@b.com>", "a@[127.0.0.1]",
        '"a"@b.com', "a@b.com,c@d.com", "a@b.com\n", "é@b.com", "a@localhost", "+905000000000",
        "a" * 65 + "@b.com", "a@" + "b" * 250 + ".com",
    )),
    (Channel.PUSH, "x" * (LONGEST_TOKEN + 1)),
    (Channel.PUSH, "é" * (LONGEST_TOKEN // 2 + 1)),
]  # fmt: skip


@pytest.mark.parametrize(("channel", "recipient"), NO_RECIPIENTS)
def test_what_is_no_recipient(channel: Channel, recipient: str) -> None:
    assert RECIPIENT_CHECKS[channel](recipient) is not None


@pytest.mark.parametrize(
    ("channel", "recipient"),
    [
        (Channel.SMS, "+1234567"),
        (Channel.SMS, "+123456789012345"),
        (Channel.EMAIL, "o'neil@example.com"),
        (Channel.EMAIL, "a@bücher.example"),
        (Channel.PUSH, "x"),
        (Channel.PUSH, "é" * (LONGEST_TOKEN // 2)),
    ],
)
def test_what_is_one(channel: Channel, recipient: str) -> None:
    assert RECIPIENT_CHECKS[channel](recipient) is None
