"""`manage.py generate_load --profile notifications` over real HTTP: what it finds of each notification."""

from __future__ import annotations

import http.client
import json
import math
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from devtools.testing.processes import free_port
from devtools.testing.web import Web
from loadtest.notifications import bodies, look_for_all, send_notifications
from loadtest.notifications_report import NotificationsPlan, NotificationsTally
from loadtest.provider import ProviderLost, provider
from notifications.models import Notification, Status
from notifications.tests.samples import set_status

SENT = 10


def plan_for(web: Web, **changes: Any) -> NotificationsPlan:
    given: dict[str, Any] = {"rate": 100, "seconds": SENT / 100, "arrivals": "even", "settle": 0.05}
    return NotificationsPlan(url=f"http://127.0.0.1:{web.port}", **given | changes)


def call(port: int, ids: Iterable[object]) -> list[int]:
    """As a sender does; the statuses of the answers."""
    statuses = []
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for id_ in ids:
            body = json.dumps({"to": "x", "channel": "sms", "content": "x"}).encode()
            connection.request("POST", "/", body, {"Idempotency-Key": str(id_)})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
    return statuses


def deliver(ids: Iterable[UUID]) -> None:
    set_status([str(id_) for id_ in ids], Status.DELIVERED)


def found(tally: NotificationsTally) -> tuple[float, ...]:
    values = tally.values()
    return tuple(
        values[name] for name in ("accepted", "lost", "missing", "without_effect", "duplicates")
    )


def test_everything_was_sent_once(web: Web) -> None:
    plan, port = plan_for(web), free_port()
    with provider(port) as arrivals:
        tally = send_notifications(plan)
        ids = list(tally.accepted_at)
        assert call(port, ids) == [202] * SENT
        deliver(ids)
        look_for_all(plan, tally)
        tally.note_arrivals(arrivals())
    assert found(tally) == (SENT, 0, 0, 0, 0)
    assert (tally.effect.count, tally.latency.count) == (SENT, SENT)
    assert {row.channel for row in Notification.objects.all()} == {"sms", "email", "push"}


def test_what_is_wrong_is_found(web: Web) -> None:
    """One waits for ever, one is gone, one is delivered and was never sent, one was sent twice; after a
    retry by hand a call is none of these, nor is one behind a 503."""
    plan, port = plan_for(web), free_port()
    with provider(port, fails=0.5, seed=3) as arrivals:
        tally = send_notifications(plan)
        waits, gone, unsent, twice, *others = tally.accepted_at
        for id_ in (gone, twice, *others):
            while call(port, [id_]) == [503]:
                pass
        while call(port, [f"{twice}.1"]) == [503]:
            pass
        Notification.objects.filter(id=gone).delete()
        deliver([unsent, twice, *others])
        look_for_all(plan, tally)
        tally.note_arrivals(arrivals())
    assert found(tally) == (SENT, 2, 1, 1, 1)
    assert tally.refused > 0
    assert tally.ends == {"delivered": SENT - 2, "pending": 1, "missing": 1}
    assert waits not in tally.delivered


def test_a_server_that_does_not_tell(web: Web) -> None:
    """Then it is not known what is lost, and no threshold is kept by that."""
    tally = send_notifications(plan_for(web))
    look_for_all(
        NotificationsPlan(url=f"http://127.0.0.1:{free_port()}", seconds=1, settle=0.05), tally
    )
    assert tally.ends == {"unchecked": SENT}
    assert math.isnan(tally.lost)


def test_batches(web: Web) -> None:
    tally = send_notifications(plan_for(web, batch=7, rate=30))
    assert tally.requests >= 3
    assert tally.accepted == 7 * tally.requests == Notification.objects.count()
    assert not tally.errors


def test_the_same_seed_sends_the_same() -> None:
    def some(seed: int) -> list[bytes]:
        make = bodies(NotificationsPlan(url="http://x", seconds=1, seed=seed, run="r"))
        return [make() for _ in range(300)]

    assert some(1) == some(1) != some(2)
    priorities = Counter(json.loads(body)["priority"] for body in some(1))
    assert priorities["normal"] > priorities["low"] > priorities["high"] > 0
    assert {len(json.loads(body)["content"]) for body in some(1)} == {100}


def test_a_provider_that_cannot_listen_says_so(web: Web) -> None:
    with (
        pytest.raises(ProviderLost, match=rf"cannot listen on port {web.port}"),
        provider(web.port),
    ):
        pass


def run(web: Web, *arguments: str) -> str:
    out = StringIO()
    call_command(
        "generate_load", "--profile", "notifications", "--url", f"http://127.0.0.1:{web.port}",
        "--rate", "100", "--duration", "0.1", "--settle", "0.05", *arguments, stdout=out,
    )  # fmt: skip
    return out.getvalue()


def test_the_command_says_what_it_found(web: Web, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(CommandError, match=r"^Crossed: lost>0$"):
        run(web, "--fail-if", "lost>0", "--fail-if", "errors>0", "--json", str(path))
    told = json.loads(path.read_text())
    assert told["ends"] == {"pending": Notification.objects.count()}
    assert told["values"]["without_effect"] is None
    text = run(web, "--provider", str(free_port()))
    assert "provider: 0 calls" in text


def test_arguments_that_make_no_sense(web: Web) -> None:
    for arguments in (
        ["--html", "x.html"],
        ["--fail-if", "figures>0"],
        ["--provider", str(web.port)],
    ):
        with pytest.raises(CommandError) as refused:
            run(web, *arguments)
        assert refused.value.returncode == 2
