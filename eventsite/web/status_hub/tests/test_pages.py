"""What clients have missed: complete, in order, and read once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from devtools.testing.ticks.log import TICKS
from eventsite.web.status_hub import pages
from eventsite.web.status_hub.pages import PAGE, RECENT, LoggedChange, Pages


def change(seq: int) -> LoggedChange:
    return LoggedChange(TICKS, seq, ("key", seq, ""))


class Log:
    """Numbers with holes, where rows were deleted; notes what is read."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.reads: list[tuple[int, int]] = []

    async def read(self, after: int, last: int) -> Sequence[LoggedChange]:
        self.reads.append((after, last))
        await asyncio.sleep(0)
        return [change(seq) for seq in range(after + 1, last + 1) if seq % 7]


async def missed(held: Pages, after: int, last: int) -> list[int]:
    found: list[int] = []
    while after < last:
        changes, end = await held.after(after, last)
        assert end > after
        found += [each.seq for each in changes]
        after = end
    return found


@given(st.integers(0, 3 * PAGE), st.integers(0, 2 * RECENT), st.integers(0, 4 * PAGE))
def test_nothing_is_missed(since: int, handed_out: int, before: int) -> None:
    """`before` numbers were there when the reader began, `handed_out` came since."""

    async def scenario() -> None:
        log = Log(before + handed_out)
        held = Pages(log.read)
        last = before
        for seq in range(before + 1, before + handed_out + 1):
            if seq % 7:
                held.note(change(seq), last)
                last = seq
        wanted = [seq for seq in range(since + 1, last + 1) if seq % 7]
        assert await missed(held, since, last) == wanted

    asyncio.run(scenario())


def test_clients_share_what_is_read() -> None:
    async def scenario() -> None:
        log = Log(3 * PAGE + 10)
        held = Pages(log.read)
        together = [missed(held, since, log.last) for since in range(40)]
        for since, found in enumerate(await asyncio.gather(*together)):
            assert found[0] == (since + 1 if (since + 1) % 7 else since + 2)
        assert len(log.reads) == 4
        await missed(held, 5, log.last)
        assert len(log.reads) == 5  # the page that is not whole yet

    asyncio.run(scenario())


def test_few_pages_are_kept() -> None:
    async def scenario() -> None:
        log = Log(3 * pages.KEPT * PAGE)
        held = Pages(log.read)
        await missed(held, 0, log.last)
        assert len(held._whole) == pages.KEPT

    asyncio.run(scenario())


def test_a_message_is_made_once_for_all() -> None:
    made: list[int] = []

    def message(seq: int, row: Any) -> dict[str, Any]:
        made.append(seq)
        return {"seq": seq}

    log = type(TICKS)(name="x", table="x", columns=(), keys=lambda _: (), message=message)
    one = LoggedChange(log, 1, ())
    assert one.outgoing is one.outgoing
    assert made == [1]
