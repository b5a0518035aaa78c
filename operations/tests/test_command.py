"""`manage.py ops status`: the page in a terminal, with the servers and without."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from devtools.testing.processes import REPOSITORY, child_environment, free_port
from operations.management.commands.ops import EXIT_CODES
from outbox.handlers.pause import pause_handler

ENDS_WITHIN = 120.0


def ops_status(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of the command, as a process of its own."""
    ended = subprocess.run(
        [sys.executable, "manage.py", "ops", "status", *arguments],
        cwd=REPOSITORY,
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


def nowhere() -> dict[str, str]:
    """No server is where these say."""
    return {
        "DATABASE_URL": f"postgresql://x:y@127.0.0.1:{free_port()}/z",
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }


def test_without_any_server_it_says_what_it_could_not_ask(django_db_setup: None) -> None:
    code, told = ops_status(**nowhere())
    assert code == EXIT_CODES["red"]
    assert told.startswith("RED  PostgreSQL, Redis and Kafka cannot be asked.")
    assert "Connection refused" in told


@pytest.mark.django_db(transaction=True)
def test_it_tells_what_the_page_tells(topics: None) -> None:
    call_command("sync_routes", verbosity=0, stdout=StringIO())
    pause_handler("record_sales", reason="a try", by="ada")
    code, told = ops_status("--json")
    answer: dict[str, Any] = json.loads(told)
    assert code == EXIT_CODES[answer["state"]]
    assert [each["reason"] for each in answer["servers"]] == ["", "", ""]
    hops = {hop["name"]: hop for hop in answer["hops"]}
    assert hops["record_sales"]["notes"] == ["paused by ada: a try"]
    assert hops["record_sales"]["waits"] is not None  # other tests have left events in the topic
    assert hops["accepted"]["rate"] == 0
    assert "HandlerPaused" in {alarm["name"] for alarm in answer["alarms"]}
