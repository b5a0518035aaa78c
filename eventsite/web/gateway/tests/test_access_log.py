"""The access log: whatever shares a turn of the loop, each request has its line and its count."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest

from devtools.testing.patience import PATIENCE
from eventsite.telemetry.logs import console_line
from eventsite.web.gateway.access_log import PAUSE, AccessLog, Call
from eventsite.web.gateway.ids import request_ids
from eventsite.web.gateway.metrics import DURATION, REQUESTS

ROUTE = "access_log/<str:test>"
# More than one to a bucket, one on a bound, one beyond the last.
SECONDS = (0.0001, 0.0007, 0.001, 0.003, 0.2, 99.0)

TURNS, SIZE = 20, 100


def note(
    access_log: AccessLog,
    seconds: float,
    *,
    path: str = "/access_log/x",
    status: int = 200,
    method: str = "GET",
) -> None:
    call = Call(path, ROUTE, "c", request_ids({}))
    access_log.note(call, method=method, status=status, seconds=seconds)


def samples() -> dict[tuple[str, str], float]:
    """Of GETs of this test's route, by name and the label that tells them apart."""
    return {
        (sample.name, sample.labels.get("le", sample.labels.get("status", ""))): sample.value
        for metric in (REQUESTS, DURATION)
        for family in metric.collect()
        for sample in family.samples
        if (sample.labels.get("path"), sample.labels.get("method")) == (ROUTE, "GET")
        and not sample.name.endswith("_created")
    }


def test_a_turn_is_counted_as_each_would_be_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    async def turns(size: int) -> dict[tuple[str, str], float]:
        access_log, before = AccessLog(service="web", level="INFO"), samples()
        for number, seconds in enumerate(SECONDS):
            note(access_log, seconds, status=500 if number == 2 else 200)
            if number % size == size - 1:
                await asyncio.sleep(0)
        access_log.close()
        return {name: value - before.get(name, 0) for name, value in samples().items()}

    alone, together = asyncio.run(turns(1)), asyncio.run(turns(len(SECONDS)))
    assert together == pytest.approx(alone)
    assert alone["http_requests_total", "200"] == 5
    assert alone["http_request_duration_seconds_count", ""] == len(SECONDS)
    assert alone["http_request_duration_seconds_bucket", "0.001"] == 3
    assert len(capfd.readouterr().err.splitlines()) == 2 * len(SECONDS)


def test_a_line_is_short_however_long_method_and_path(capfd: pytest.CaptureFixture[str]) -> None:
    async def turn() -> None:
        note(AccessLog(service="web", level="INFO"), 0.001, path="/" * 9000, method="M" * 9000)

    asyncio.run(turn())
    [line] = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    assert (line["method"], line["path"]) == ("M" * 64, "/" * 1000)


def test_lines_of_a_turn_are_written_whole_and_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    paths = ["/access_log/a", "/access_log/\udce9", "/access_log/b"]

    async def turn() -> None:
        access_log = AccessLog(service="web", level="INFO")
        for path in paths:
            note(access_log, 0.001, path=path)
        assert not capfd.readouterr().err  # they go together, when the turn ends

    asyncio.run(turn())
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["path"] for line in lines] == [
        "/access_log/a",
        "/access_log/\\udce9",
        "/access_log/b",
    ]


def test_a_line_may_be_one_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    async def turn() -> None:
        access_log = AccessLog(service="web", level="INFO", console=console_line)
        note(access_log, 0.0015, path="/access_log/\udce9", status=201)

    asyncio.run(turn())
    [line] = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        r"[\d:.]{12} web +GET /access_log/\\udce9 201 1.5 ms caller=c correlation_id=…\S+ trace_id=…\S+",
        line,
    )


def test_a_busy_process_writes_less_often(capfd: pytest.CaptureFixture[str]) -> None:
    async def turns() -> None:
        # A pause so long that no stall of this test ends it.
        access_log = AccessLog(service="web", level="INFO", pause=0.5)
        for size, written_at_once in ((2, 2), (3, 0), (1, 0)):
            for _ in range(size):
                note(access_log, 0.001)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(capfd.readouterr().err.splitlines()) == written_at_once
        while not (late := capfd.readouterr().err.splitlines()):
            await asyncio.sleep(PAUSE)
        assert len(late) == 4

    asyncio.run(turns())


def test_who_cannot_wait_has_it_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    async def turns() -> None:
        access_log = AccessLog(service="web", level="INFO", pause=60.0)
        for kept_back in (0, 3):
            for _ in range(3):
                note(access_log, 0.001)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            before, written = samples(), capfd.readouterr().err.splitlines()
            assert len(written) == 3 - kept_back
            access_log.flush()
            assert len(capfd.readouterr().err.splitlines()) == kept_back
            counted = samples()["http_requests_total", "200"] - before["http_requests_total", "200"]
            assert counted == kept_back

    asyncio.run(turns())


def test_an_access_log_that_is_closed_keeps_nothing_back(capfd: pytest.CaptureFixture[str]) -> None:
    """The end of the process closes it while the last requests may still be answered."""

    async def end() -> None:
        access_log = AccessLog(service="web", level="INFO")
        for _ in range(2):
            note(access_log, 0.001)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        note(access_log, 0.001)
        access_log.close()
        assert len(capfd.readouterr().err.splitlines()) == 3
        note(access_log, 0.001)
        assert len(capfd.readouterr().err.splitlines()) == 1

    asyncio.run(end())


def test_processes_that_share_a_pipe_tear_no_line() -> None:
    """A pipe takes PIPE_BUF bytes at once or in pieces that others come between."""
    read, write = os.pipe()
    code = (
        "import asyncio; from eventsite.web.gateway.tests.test_access_log import fill_turns;"
        "asyncio.run(fill_turns())"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code], stderr=write) for _ in range(2)]
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as pipe:
        said = b""
        while piece := pipe.read(1000):  # slower than they are
            said += piece
    for writer in writers:
        assert writer.wait(PATIENCE) == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert len(lines) == 2 * TURNS * SIZE
    assert {line["route"] for line in lines} == {ROUTE}


async def fill_turns() -> None:
    """In a process of its own: turns of more lines than a pipe takes at once."""
    access_log = AccessLog(service="web", level="INFO")
    for _ in range(TURNS):
        for number in range(SIZE):
            note(access_log, 0.001, path=f"/access_log/{'x' * number}")
        await asyncio.sleep(0)
    access_log.close()
