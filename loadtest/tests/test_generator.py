"""The generator against a server that misbehaves, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from devtools.testing.processes import free_port
from loadtest import generator
from loadtest.client import Client, Failed
from loadtest.generator import GeneratorPlan, generate
from loadtest.tally import LoadTally
from loadtest.tests.conftest import stub_process


def test_every_order_is_sent_and_accepted(stub: str) -> None:
    tally = generate(GeneratorPlan(url=f"{stub}/ok", rate=200, seconds=0.5, arrivals="even"))
    assert (tally.due, tally.accepted, tally.not_sent) == (100, 100, 0)
    assert not tally.errors
    assert tally.latency.count == tally.service.count == tally.lag.count == 100
    ids = [order_id for batch, _ in tally.batches(30) for order_id in batch]
    assert len(set(ids)) == len(ids) == 100
    assert tally.under_way == 0


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("status_503", "status 503"),
        ("silent", "timeout"),
        ("hang_up", "hung_up"),
        ("half", "hung_up"),
        ("reset", "reset"),
        ("garbage", "malformed"),
        ("no_id", "no order id"),
    ],
)
def test_errors_are_told_apart(stub: str, behaviour: str, kind: str) -> None:
    plan = GeneratorPlan(
        url=f"{stub}/{behaviour}", rate=100, seconds=0.1, arrivals="even", timeout=0.3
    )
    tally = generate(plan)
    assert tally.errors == {kind: 10}
    assert (tally.accepted, tally.latency.count) == (0, 0)


def test_nobody_listening_is_refused() -> None:
    plan = GeneratorPlan(
        url=f"http://127.0.0.1:{free_port()}", rate=100, seconds=0.1, arrivals="even"
    )
    assert generate(plan).errors == {"refused": 10}


def test_a_name_that_leads_nowhere_is_unreachable() -> None:
    plan = GeneratorPlan(url="http://nowhere.invalid", rate=50, seconds=0.1, arrivals="even")
    assert generate(plan).errors == {"unreachable": 5}


@pytest.mark.parametrize("behaviour", ["pieces", "closes"])
def test_whole_answers_in_other_shapes_count(stub: str, behaviour: str) -> None:
    tally = generate(
        GeneratorPlan(url=f"{stub}/{behaviour}", rate=100, seconds=0.1, arrivals="even")
    )
    assert (tally.accepted, tally.errors) == (10, {})


def test_an_answer_too_many_is_nobodys(stub: str) -> None:
    """It must not be taken for the answer of the next request."""

    async def two() -> None:
        client = Client(f"{stub}/twice", timeout=5)
        first = await client.request(b"POST", b"/orders", b"{}")
        await asyncio.sleep(0.05)
        second = await client.request(b"POST", b"/orders", b"{}")
        assert first.status == second.status == 201
        assert first.body != second.body
        client.close()

    asyncio.run(two())


def slow(tally: LoadTally) -> int:
    """Answers that took half a second or more."""
    return sum(count for edge, count in tally.latency.buckets() if edge >= 500_000)


def test_a_stall_shows_by_the_clock_and_hides_in_a_closed_loop() -> None:
    """Coordinated omission: while the server stands still for 1 s, a connection that waits for its
    answer sends nothing and sees one slow one; by the clock everybody who came meanwhile waited."""
    with stub_process() as fresh:
        opened = generate(
            GeneratorPlan(url=f"{fresh}/stall", rate=100, seconds=2.0, arrivals="even")
        )
    with stub_process() as fresh:
        closed = generate(GeneratorPlan(url=f"{fresh}/stall", closed=1, seconds=2.0))
    assert opened.errors == closed.errors == {}
    assert opened.latency.percentile(99) > 900_000
    assert slow(opened) >= 40
    assert closed.latency.max > 900_000
    assert 1 <= slow(closed) <= 3


def test_latency_counts_from_the_intended_start_when_the_generator_is_late(stub: str) -> None:
    """A generator that is held up for 0.3 s owns up: in its lag, and in the latency."""

    async def hold() -> None:
        await asyncio.sleep(0.2)
        threading.Event().wait(0.3)

    async def both(plan: GeneratorPlan) -> None:
        holder = asyncio.create_task(hold())
        client = plan.client()
        tally = await generator._generate(plan, client, lambda _: None)
        await holder
        client.close()
        assert tally.lag.percentile(99) > 200_000
        assert tally.latency.percentile(99) > 200_000
        assert tally.service.percentile(50) < tally.latency.percentile(99)

    asyncio.run(both(GeneratorPlan(url=f"{stub}/ok", rate=200, seconds=1.0, arrivals="even")))


def test_what_cannot_be_sent_is_counted(stub: str) -> None:
    plan = GeneratorPlan(
        url=f"{stub}/silent", rate=200, seconds=0.5, arrivals="even", timeout=2, max_in_flight=7
    )
    tally = generate(plan)
    assert (tally.due, tally.sent, tally.not_sent) == (100, 7, 93)
    assert tally.errors == {"timeout": 7}
    assert sum(slot.not_sent for slot in tally.timeline.slots) == 93


def test_closed_keeps_n_connections_busy(stub: str) -> None:
    tally = generate(GeneratorPlan(url=f"{stub}/ok", closed=4, seconds=1.5))
    assert tally.accepted > 4
    assert tally.not_sent == 0
    assert tally.errors == {}


def test_ctrl_c_ends_early_with_what_was_done(stub: str) -> None:
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    tally = generate(GeneratorPlan(url=f"{stub}/ok", rate=100, seconds=60.0))
    timer.join()
    assert tally.ended_early
    assert 0 < tally.accepted == tally.sent
    assert tally.seconds < 30
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_progress_is_told(stub: str) -> None:
    seen: list[int] = []
    plan = GeneratorPlan(url=f"{stub}/ok", rate=50, seconds=2.3, arrivals="even")
    tally = generate(plan, on_second=lambda t: seen.append(t.accepted))
    assert seen == sorted(seen)
    assert len(seen) >= 2
    assert seen[-1] <= tally.accepted == 115


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        Client(url)


def test_headers_cannot_smuggle_lines() -> None:
    with pytest.raises(ValueError, match="is no header"):
        Client("http://x", headers={"A": "b\r\nC: d"})


def test_a_request_after_close_has_a_new_connection(stub: str) -> None:
    async def both() -> None:
        client = Client(f"{stub}/ok")
        await client.request(b"POST", b"/orders", b"{}")
        client.close()
        assert (await client.request(b"POST", b"/orders", b"{}")).status == 201
        client.close()

    asyncio.run(both())


def test_a_cancelled_request_leaves_its_answer_to_nobody(stub: str) -> None:
    async def cancelled() -> None:
        client = Client(f"{stub}/silent", timeout=5)
        task = asyncio.create_task(client.request(b"POST", b"/orders", b"{}"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not client._idle
        assert not any(connection.usable for connection in client._all)

    asyncio.run(cancelled())


def test_failed_names_its_kind() -> None:
    assert str(Failed("reset")) == "reset"
