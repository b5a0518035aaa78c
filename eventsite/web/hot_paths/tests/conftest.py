"""Processes for requests that go both ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.testing.web import Web, web_process

__all__ = ["ways", "ways_of_session"]


@pytest.fixture(scope="session")
def ways_of_session(django_db_setup: None) -> Iterator[tuple[Web, Web]]:
    """With hot paths, and without."""
    with web_process(HOT_PATHS="on") as hot, web_process(HOT_PATHS="off") as django:
        yield hot, django


@pytest.fixture
def ways(ways_of_session: tuple[Web, Web], transactional_db: None) -> tuple[Web, Web]:
    return ways_of_session
