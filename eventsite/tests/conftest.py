"""Fixtures of the whole-path tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventsite.tests.web import Web, web_process


@pytest.fixture(scope="module")
def web_of_module(django_db_setup: None) -> Iterator[Web]:
    """One web process for the tests of a module."""
    with web_process() as started:
        yield started


@pytest.fixture
def web(web_of_module: Web, transactional_db: None) -> Web:
    """The web process, its database empty."""
    return web_of_module


@pytest.fixture
def refusing_web(web_of_module: Web, db: None) -> Web:
    """The same for requests that store nothing; quicker, because nothing must be cleaned."""
    return web_of_module
