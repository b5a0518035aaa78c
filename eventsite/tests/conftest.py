"""Fixtures of the whole-path tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command

from devtools.testing.pipeline import empty_pipeline
from devtools.testing.web import Web, web_process
from restapi.tests.tables import row_counts


@pytest.fixture(scope="session")
def web_of_session(django_db_setup: None) -> Iterator[Web]:
    """One web process for all tests that leave it alive."""
    with web_process() as started:
        yield started


@pytest.fixture
def web(web_of_session: Web, transactional_db: None) -> Web:
    """The web process, its database empty."""
    return web_of_session


@pytest.fixture
def refusing_web(web_of_session: Web, db: None) -> Web:
    """The same for requests that store nothing; quicker, because nothing must be cleaned."""
    return web_of_session


@pytest.fixture
def nothing_stored(refusing_web: Web) -> Iterator[None]:
    before = row_counts()
    yield
    assert row_counts() == before


@pytest.fixture(scope="session")
def topics() -> None:
    """The topics of the map, in this run's Kafka."""
    call_command("create_topics", verbosity=0)


@pytest.fixture
def pipeline(topics: None, transactional_db: None) -> None:
    """An empty database, empty Celery queues, and every handler at the end of its topics."""
    empty_pipeline()
