"""The stub server of these tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from devtools.testing.processes import free_port, running


@contextmanager
def stub_process() -> Iterator[str]:
    """Its address; `/behaviour` is put behind it."""
    port = free_port()
    command = (sys.executable, "-m", "loadtest.tests.stub", str(port))
    url = f"http://127.0.0.1:{port}"
    with running(command, dict(os.environ), f"{url}/health"):
        yield url


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """One stub for the tests of a module."""
    process: AbstractContextManager[str] = stub_process()
    with process as url:
        yield url
