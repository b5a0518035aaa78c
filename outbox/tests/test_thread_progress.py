"""When a watchdog takes a thread's loop for one that stands still."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from outbox.process.watchdog import StopFlag, ThreadProgress

THREADS = 3


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    ended = threading.Event()
    started = [threading.Thread(target=ended.wait) for _ in range(THREADS)]
    for thread in started:
        thread.start()
    yield started
    ended.set()
    for thread in started:
        thread.join()


def looks(threads: list[threading.Thread], asking: list[set[int]]) -> list[bool]:
    """What each look says; `asking`: before each, the threads that have asked their flag."""
    stop = StopFlag()
    progress = ThreadProgress(stop, threads)
    found = []
    for numbers in asking:
        for number in numbers:
            stop.asked[threads[number].ident or 0] += 1
        found.append(progress.stands_still())
    return found


def test_threads_that_wait_by_turns_get_on(threads: list[threading.Thread]) -> None:
    """As all of a bridge's do while PostgreSQL does not answer: none asks in every look."""
    by_turns = [{look % THREADS} for look in range(30)]
    found = looks(threads, [{0, 1, 2}, *by_turns])
    longest = max(len(run) for run in "".join("x" if still else " " for still in found).split(" "))
    assert longest < THREADS


def test_one_that_stays_is_found_whatever_the_others_do(threads: list[threading.Thread]) -> None:
    others = [{1 + look % 2} for look in range(30)]
    found = looks(threads, [{0, 1, 2}, *others])
    assert all(found[4:])


def test_all_get_on(threads: list[threading.Thread]) -> None:
    assert not any(looks(threads, [{0, 1, 2}] * 10))
