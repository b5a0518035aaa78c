"""`manage.py ops status`: the page in a terminal, with the servers and without."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from html import unescape
from io import StringIO
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.core.management import call_command

from devtools.testing import zygote
from devtools.testing.processes import child_environment, free_port
from operations.judge import Judge
from operations.letters import LetterGroup
from operations.management.commands.ops import EXIT_CODES
from operations.pages import LETTERS, as_json, charts_part, live_part
from operations.past import MinuteFigures, Past, Row
from operations.snapshot import Snapshot
from operations.terminal import rendered
from operations.tests.well import PROCESSES, postgres, process, redis, snapshot
from outbox.database.operator_log import Entry
from outbox.handlers.pause import pause_handler
from outbox.process.heartbeat import SeenProcess

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


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def an_entry(number: int, *, ended: bool) -> Entry:
    return Entry(
        id=number,
        at=NOON,
        by="ada",
        what="replay",
        subject=f"group {number}",
        why="mended",
        asked=40,
        done=12,
        skipped=3,
        ended_at=NOON if ended else None,
        outcome="",
    )


def everything() -> Snapshot:
    """Dead letters, an action that is over and one under way, two releases, and a past."""
    rows = [
        Row(
            NOON + timedelta(minutes=minute),
            MinuteFigures(series={"pipeline/outbox#waits": 17.0 + minute}, releases=("r",)),
        )
        for minute in range(3)
    ]
    letters = [
        LetterGroup(handler="record_sales", error="no such row", letters=4, oldest=61.0, like="9")
    ]
    another = SeenProcess(
        said=msgspec.structs.replace(process("web").said, name="web-2", release="later"), age=1.0
    )
    return snapshot(
        Judge(settings.WIRING.alarms),
        from_redis=redis([*PROCESSES, another]),
        from_postgres=postgres(
            letters=letters,
            actions=[an_entry(1, ended=True), an_entry(2, ended=False)],
            past=Past(rows=rows),
        ),
    )


def test_page_and_terminal_have_the_same_words() -> None:
    told = everything()
    page = unescape(live_part(told, frozenset({LETTERS})) + charts_part(told, "hour"))
    terminal = rendered(told, colour=False)
    for words in (
        *("Dead letters, by handler and error", "no such row"),
        *("Who did what", "replay of group 1"),
        *("Under way", "replay of group 2", "12 of 40 done, 3 skipped", "ada: mended"),
        "Two releases run at once: later, r.",
        *("Events waiting for Kafka", "19 now, 19 at most"),
    ):
        assert words in page, words
        assert words in terminal, words


def test_json_has_all_of_it_and_errors_for_those_who_may_see_them() -> None:
    told = everything()
    answer = json.loads(json.dumps(as_json(told, letters=True)))
    assert answer["deadLetters"] == [
        {
            "handler": "record_sales",
            "error": "no such row",
            "letters": 4,
            "oldest": 61.0,
            "like": "9",
        }
    ]
    assert [(each["id"], each["ended"]) for each in answer["actions"]] == [(1, True), (2, False)]
    assert answer["releases"] == ["later", "r"]
    [chart] = answer["past"]["charts"]
    assert (chart["name"], chart["unit"]) == ("pending", "count")
    assert chart["lines"][0]["values"][-4:] == [None, 17.0, 18.0, 19.0]
    assert answer["past"]["until"][-1] == "2026-03-01T12:02:00.000Z"
    assert len(as_json(told, span="day", letters=True)["past"]["until"]) == 144
    hidden = as_json(told, letters=False)
    assert hidden["deadLetters"] is None
    assert "no such row" not in json.dumps(hidden)
