"""A web process with the page, and people who look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command

from devtools.testing.web import Web, web_process

TOKEN = "a-token-of-operators-in-tests-2f8c1d"


@pytest.fixture(scope="session")
def web_of_operators(django_db_setup: None) -> Iterator[Web]:
    with web_process(OPS_TOKEN=TOKEN) as started:
        yield started


@pytest.fixture
def web(web_of_operators: Web, transactional_db: None) -> Web:
    """The web process, its database empty."""
    return web_of_operators


@pytest.fixture(scope="session")
def topics() -> None:
    """The topics of the map, in this run's Kafka."""
    call_command("create_topics", verbosity=0)
