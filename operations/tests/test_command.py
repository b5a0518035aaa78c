"""`manage.py ops status`: the page in a terminal, with the servers and without."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from devtools.testing import zygote
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import REPOSITORY, child_environment, free_port
from operations.management.commands.ops import EXIT_CODES
from operations.pages import as_json
from operations.tests.everything import everything
from outbox.handlers.pause import pause_handler

ENDS_WITHIN = 120.0


def ops_status(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of the command, as a process of its own."""
    ended = zygote.run(
        *("manage.py", "ops", "status", *arguments),
        environment=child_environment(**environment),
        timeout=ENDS_WITHIN,
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
    away = nowhere()
    code, output = ops_status(**away)
    assert code == EXIT_CODES["red"]
    assert output.startswith("RED  PostgreSQL, Redis and Kafka are unavailable.")
    assert "Connection refused" in output

    code, output = ops_status("--json", "--span", "day", **away)
    answer = json.loads(output)
    assert (code, answer["state"], answer["asOf"]) == (EXIT_CODES["red"], "red", None)
    assert {each["name"]: bool(each["reason"]) for each in answer["servers"]} == dict.fromkeys(
        ("PostgreSQL", "Redis", "Kafka"), True
    )
    assert (answer["hops"], answer["timeLeft"], answer["processes"]) == ([], [], [])
    assert {each["state"] for each in answer["read"].values()} == {"grey"}
    assert answer["past"]["span"] == "day"


# Whoever runs the tests in the background has made them, and what they start, deaf to this signal.
WATCHES = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "manage.py", "ops", "status", "--watch"])
"""
FRAME = re.compile(rb"as of (\S+)Z")


@pytest.mark.django_db(transaction=True)
def test_it_watches_until_it_is_interrupted(topics: None) -> None:
    """In a terminal, where it draws again and again; Ctrl+C sends the signal."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (50, 200))
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHES],
        cwd=REPOSITORY,
        env=child_environment(TERM="xterm"),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    seen = bytearray()
    reads = threading.Thread(target=_collect, args=(ours, seen), daemon=True)
    reads.start()
    try:
        assert settles(lambda: len(set(FRAME.findall(bytes(seen)))) >= 2), bytes(seen)[-2000:]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        reads.join(PATIENCE)
        os.close(ours)
    assert b"Traceback" not in seen


def _collect(terminal: int, seen: bytearray) -> None:
    """Until its other end is closed, which Linux says with an error."""
    with suppress(OSError):
        while some := os.read(terminal, 65536):
            seen += some


@pytest.mark.django_db(transaction=True)
def test_it_tells_what_the_page_tells(topics: None) -> None:
    call_command("sync_routes", verbosity=0, stdout=StringIO())
    pause_handler("record_sales", reason="a try", by="ada")
    code, output = ops_status("--json")
    answer: dict[str, Any] = json.loads(output)
    assert code == EXIT_CODES[answer["state"]]
    assert [each["reason"] for each in answer["servers"]] == ["", "", ""]
    hops = {hop["name"]: hop for hop in answer["hops"]}
    assert hops["record_sales"]["notes"] == ["paused by ada: a try"]
    assert hops["record_sales"]["waits"] is not None  # other tests have left events in the topic
    assert hops["accepted"]["rate"] == 0
    assert "HandlerPaused" in {alarm["name"] for alarm in answer["alarms"]}


def test_json_has_all_of_it_and_errors_for_those_who_may_see_them() -> None:
    snapshot = everything()
    answer = json.loads(json.dumps(as_json(snapshot, letters=True)))
    assert answer["deadLetters"] == [
        {
            "handler": "record_sales",
            "error": "no [such] row",
            "letters": 4,
            "oldest": 61.0,
            "like": "9",
        }
    ]
    assert [(each["id"], each["ended"]) for each in answer["actions"]] == [(1, True), (2, False)]
    assert answer["versions"] == [
        {"release": "r", "build": ""},
        {"release": "r", "build": "sha-2"},
    ]
    assert {each["build"] for each in answer["processes"]} == {"", "sha-2"}
    [chart] = answer["past"]["charts"]
    assert (chart["name"], chart["unit"]) == ("pending", "count")
    assert chart["lines"][0]["values"][-4:] == [None, 17.0, 18.0, 19.0]
    assert answer["past"]["until"][-1] == "2026-03-01T12:02:00.000Z"
    assert len(as_json(snapshot, span="day", letters=True)["past"]["until"]) == 144
    hidden = as_json(snapshot, letters=False)
    assert hidden["deadLetters"] is None
    assert "no [such] row" not in json.dumps(hidden)
