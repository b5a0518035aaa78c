"""Notifications from POST to the provider, with real processes: every priority and channel, a provider that
fails at first, a schedule that comes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.conf import settings
from django.utils import timezone

from devtools.provider.client import ProviderProcess, provider_process
from devtools.provider.server import AnswerRule
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import running_together, spec_of
from devtools.testing.web import Web
from eventsite.tests.notification_requests import walk
from outbox.envelope import rfc3339
from outbox.models import DeadLetter

pytestmark = pytest.mark.usefixtures("pipeline")

PROCESSES = (
    "worker-outbox",
    "bridge",
    "beat",
    "worker-notifications-high",
    "worker-notifications-normal",
    "worker-notifications-low",
)


@pytest.fixture
def provider() -> Iterator[ProviderProcess]:
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        for name in [*server.scan_iter("notifications:*"), *server.scan_iter("pacing:*")]:
            server.delete(name)
    with provider_process() as running:
        yield running


def body(number: int, **changes: str) -> dict[str, str]:
    channel = ("sms", "email", "push")[number % 3]
    recipients = {"sms": f"+1555{number:07}", "email": f"a{number}@example.org"}
    return {
        "recipient": recipients.get(channel, f"token-{number}"),
        "channel": channel,
        "content": "Hello",
        "priority": ("high", "normal", "low")[number // 3 % 3],
        **changes,
    }


def test_from_the_request_to_the_provider(provider: ProviderProcess, web: Web) -> None:
    failing = body(0)["recipient"]
    provider.rules(AnswerRule(recipient=failing, status=500, times=1))
    given = json.dumps({"main": {"kind": "webhook", "url": provider.url}})
    with running_together([spec_of(name, PROVIDERS=given) for name in PROCESSES]):
        accepted = [web.post("/api/v1/notifications", body(number)) for number in range(12)]
        at = rfc3339(timezone.now() + timedelta(seconds=3))
        accepted.append(web.post("/api/v1/notifications", body(12, scheduled_at=at)))
        batch = [body(number) for number in range(13, 40)]
        stored = web.post("/api/v1/notifications/batch", {"notifications": batch})
        assert {answer.status for answer in (*accepted, stored)} == {201}
        told = [answer.json for answer in accepted] + stored.json["notifications"]
        ids = [each["id"] for each in told]

        def statuses() -> Counter[str]:
            page = web.get("/api/v1/notifications?page_size=100").json["data"]
            return Counter(each["status"] for each in page)

        assert settles(lambda: statuses() == {"delivered": 40}), statuses()
        arrivals = provider.arrivals()
        walked = walk(web, SECONDS_TO_DELIVER=str(PATIENCE))
        assert walked.returncode == 0, walked.stdout + walked.stderr
        assert "ok      they have counted what was sent" in walked.stdout

    arrived = Counter(arrival.key for arrival in arrivals)
    assert arrived == {id_: 1 + (id_ == ids[0]) for id_ in ids}
    assert not DeadLetter.objects.exists()
    tried = web.get(f"/api/v1/notifications/{ids[0]}/attempts").json["data"]
    assert [(each["outcome"], each["status_code"]) for each in tried] == [
        ("failed", 500),
        ("delivered", 200),
    ]
    traced = {arrival.headers["traceparent"].split("-")[1] for arrival in arrivals}
    asked = {answer.header("traceparent").split("-")[1] for answer in (*accepted, stored)}
    assert traced == asked
