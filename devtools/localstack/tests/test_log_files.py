"""`make logs`: all files as one, by time, one line an event, whoever wrote it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.localstack.log_files import merged, read_entries, shown
from devtools.localstack.state import CLONE, StackState
from devtools.localstack.tests.commands import command_line
from devtools.testing import zygote
from devtools.testing.patience import PATIENCE

TRACE = "61e57a6d866ea2ab4e3a653cafb356f5"
ORDER = "01a22951-c5de-7640-89b2-75022da85f49"


def entry(event: str, at: datetime, **fields: object) -> str:
    common = {"service": "x", "logger": "l", "level": "info", "at": at.isoformat(), "event": event}
    return json.dumps(common | fields)


@pytest.fixture
def state(tmp_path: Path) -> StackState:
    state = StackState(tmp_path)
    state.create()
    return state


def logs(state: StackState, *arguments: str, **variables: str) -> list[str]:
    done = subprocess.run(
        command_line("--state", str(state.root), "logs", *arguments),
        cwd=CLONE,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "second", "words"),
    [
        (
            "2025-11-29 21:58:46.874 UTC [20261] web ERROR:  no such table",
            46.874,
            "ERROR web: no such table",
        ),
        ("2025-11-29 21:58:46.885 UTC [20268]  LOG:  ready", 46.885, "      ready"),
        ("2025-11-29T21:58:52.929 [main] WARN kafka.Server - slow", 52.929, "warn  kafka.Server -"),
        (
            "\x1b[2m2025-11-29T21:58:52.929123Z\x1b[0m \x1b[32m INFO\x1b[0m tansu: ready",
            52.929,
            "      tansu: ready",
        ),
        ("20005:C 29 Nov 2025 21:58:41.310 # Configuration loaded", 41.31, "Configuration loaded"),
    ],
    ids=["postgres-error", "postgres", "kafka", "tansu", "redis"],
)
def test_the_time_of_each_server_is_understood(line: str, second: float, words: str) -> None:
    [found] = read_entries("server", [line], before=0.0)
    assert found.at is not None
    assert found.at.replace(second=0, microsecond=0) == datetime(2025, 11, 29, 21, 58, tzinfo=UTC)
    assert found.at.second + found.at.microsecond / 1e6 == pytest.approx(second, abs=0.001)
    text = shown(found, colour=False)
    assert text.startswith(f"2025-11-29 21:58:{int(second)}.")
    assert words in text
    assert "\x1b" not in text


def test_lines_are_merged_by_time_and_what_has_none_stays_behind_its_line() -> None:
    begin = datetime.now(UTC)
    at = [begin + timedelta(milliseconds=number) for number in range(4)]
    one = read_entries("one", [entry("first", at[0]), "  more of it", entry("last", at[3])], 0.0)
    two = read_entries("two", [entry("second", at[1]), "  and of this", entry("third", at[2])], 0.0)
    texts = [shown(each, colour=False) for each in merged([one, two])]
    words = ["first", "more of it", "second", "and of this", "third", "last"]
    assert [word in text for word, text in zip(words, texts, strict=True)] == [True] * 6


def test_an_entry_is_one_line_with_short_ids(state: StackState) -> None:
    at = datetime.now(UTC)
    failure = entry(
        *("failed", at), level="error", order_id=ORDER, trace_id=TRACE, reason="two\nlines",
        correlation_ids=[ORDER] * 5, exception="Traceback …\n  File\nValueError: no\n",
    )  # fmt: skip
    request = entry(
        *("request", at), method="POST", path="/orders", route="orders", status=201,
        duration_ms=19.54, caller="anonymous",
    )  # fmt: skip
    state.log("web").write_text(f"{failure}\n{request}\n")
    clock = at.strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03}"
    found = logs(state)
    assert [re.sub(" +", " ", line).removeprefix("2") for line in found] == [
        re.sub(" +", " ", line).removeprefix("2")
        for line in (
            f"{clock} web ERROR failed order_id=…2da85f49 trace_id=…afb356f5"
            f' reason="two\\nlines" correlation_ids={",".join(["…2da85f49"] * 3)},+2'
            ' exception="ValueError: no"',
            f"{clock} web POST /orders 201 19.5 ms",
        )
    ]
    assert logs(state, "--raw") == [failure, request]


def test_no_escape_sequence_of_a_log_reaches_the_terminal(state: StackState) -> None:
    hostile = entry("\x1b[2Jgone", datetime.now(UTC), path="\x1b]0;title\x07")
    state.log("web").write_text(f"{hostile}\nplain \x1b[5mblink\x07\n")
    assert "\x1b" not in "".join(logs(state))


def test_the_last_lines_of_all_and_of_one(state: StackState) -> None:
    begin = datetime.now(UTC)
    for name, number in (("web", 0), ("bridge", 1)):
        lines = [entry(f"{name}-{i}", begin + timedelta(seconds=2 * i + number)) for i in range(50)]
        state.log(name).write_text("".join(f"{line}\n" for line in lines))
    assert [re.findall(r"\w+-\d+", line)[-1] for line in logs(state, "-n", "3")] == [
        "bridge-48", "web-49", "bridge-49",
    ]  # fmt: skip
    assert len(logs(state, "web", "-n", "7")) == 7
    assert len(logs(state)) == 100
    refused = subprocess.run(
        command_line("--state", str(state.root), "logs", "wbe"),
        cwd=CLONE, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "There is no log of wbe. There are: bridge, web." in refused.stderr


@pytest.fixture
def followed(state: StackState) -> Iterator[subprocess.Popen[str]]:
    for name in ("web", "bridge"):
        state.log(name).write_text(entry(f"{name}-begins", datetime.now(UTC)) + "\n")
    child = subprocess.Popen(
        command_line("--state", str(state.root), "logs", "-f"),
        cwd=CLONE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield child
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def test_following_shows_what_comes_by_time(
    state: StackState, followed: subprocess.Popen[str]
) -> None:
    assert followed.stdout is not None
    assert "web-begins" in followed.stdout.readline()
    assert "bridge-begins" in followed.stdout.readline()
    earlier = datetime.now(UTC)
    time.sleep(0.01)
    with state.log("bridge").open("a") as file:
        file.write(entry("later", datetime.now(UTC)) + "\n")
    with state.log("web").open("a") as file:
        file.write(entry("earlier", earlier) + "\n")
    assert "earlier" in followed.stdout.readline()
    assert "later" in followed.stdout.readline()


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_a_terminal_that_wants_them(
    state: StackState, variables: dict[str, str], coloured: bool
) -> None:
    state.log("web").write_text(entry("failed", datetime.now(UTC), level="error") + "\n")
    ours, theirs = os.openpty()
    others = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        command_line("--state", str(state.root), "logs"),
        cwd=CLONE, env={**others, **variables}, stdout=theirs, check=True, timeout=PATIENCE,
    )  # fmt: skip
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "failed" in text
    assert ("\x1b[" in text) is coloured
    assert not any("\x1b[" in line for line in logs(state))


def test_a_reader_who_stops_ends_the_following(state: StackState) -> None:
    state.log("web").write_text(entry("begins", datetime.now(UTC)) + "\n")
    script = '"$@" -f | head -n 1'
    done = subprocess.Popen(
        ["bash", "-c", script, "bash", *command_line("--state", str(state.root), "logs")],
        cwd=CLONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.stdout is not None
    assert "begins" in done.stdout.readline()
    with state.log("web").open("a") as file:
        file.write(entry("nobody reads this", datetime.now(UTC)) + "\n")
    _, error = done.communicate(timeout=PATIENCE)
    assert error == ""


def test_a_process_may_write_such_lines_itself() -> None:
    done = zygote.run(
        *("manage.py", "shell", "--no-imports", "-c"),
        "import logging, structlog; structlog.get_logger('a').warning('ours', order_id='"
        + ORDER
        + "'); logging.getLogger('b').error('theirs %s', 'x y')",
        environment={**os.environ, "LOG_FORMAT": "console", "SERVICE_NAME": "here"},
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stderr.splitlines()[-2:]
    assert re.fullmatch(r"[\d:.]{12} here +warn +ours order_id=…2da85f49", ours)
    assert re.fullmatch(r"[\d:.]{12} here +ERROR theirs x y", theirs)
