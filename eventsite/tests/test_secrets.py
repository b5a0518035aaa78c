"""Secrets are sent everywhere, each with a mark of its own; then no log, metric, span, dead letter or page
may have one. Once with everything running, at the most talkative level, once with every server away."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlencode, urlsplit

import pytest
import redis
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from apikeys import services as key_services
from devtools.localstack import PLAN
from devtools.provider.client import provider_process
from devtools.provider.server import AnswerRule
from devtools.testing.pipeline import settles
from devtools.testing.processes import (
    Process,
    Spec,
    child_environment,
    command_of,
    free_port,
    running_together,
    spec_of,
)
from devtools.testing.receiver import receiving
from devtools.testing.web import JSON, Web
from eventsite.tests.marks import Marks
from eventsite.tests.test_content_security import HTML
from notifications.models import Attempt
from outbox.models import DeadLetter

PAGES = (
    *("/", "/ops/", "/ops/status.json", "/swagger/", "/openapi.json", "/admin/"),
    *("/admin/notifications/notification/", "/admin/outbox/deadletter/", "/admin/apikeys/apikey/"),
    *("/admin/outbox/outboxevent/", "/health/ready", "/metrics"),
)
SMS = {"recipient": "+15550001", "channel": "sms", "content": "Hello", "priority": "high"}
MAIL = SMS | {"recipient": "a@example.org", "channel": "email"}


def texts_of(started: Sequence[Process]) -> dict[str, str]:
    return {" ".join(each.log.parts[-2:]): each.log.read_text(errors="replace") for each in started}


def rows_of(*labels: str) -> dict[str, str]:
    """All rows of these tables as text."""
    return {label: str(list(apps.get_model(label).objects.values())) for label in labels}


@contextmanager
def redis_user(name: str, password: str) -> Iterator[str]:
    """The address of this run's Redis for a user with a password."""
    at = urlsplit(settings.REDIS_URL)
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        server.acl_setuser(
            name,
            enabled=True,
            passwords=[f"+{password}"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
        )
        try:
            yield f"redis://{name}:{password}@{at.hostname}:{at.port}{at.path or '/0'}"
        finally:
            server.acl_deluser(name)


def with_password(url: str, password: str) -> str:
    """PostgreSQL of the tests trusts everybody, so any password gets in."""
    parts = urlsplit(url)
    host = f"{parts.username}:{password}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=host).geturl()


def send_keys(web: Web, marks: Marks) -> None:
    """Good and bad keys by every way in."""
    scopes = ["orders:read", "orders:write"]
    [good, revoked] = [
        key_services.create_key(name=name, scopes=scopes, by="a test", at=timezone.now())
        for name in ("shop", "gone")
    ]
    key_services.revoke_key(prefix=revoked.row.prefix, by="a test", at=timezone.now())
    marks.known["key of the shop"], marks.known["revoked key"] = good.key, revoked.key
    assert web.get("/orders", **{"X-API-Key": good.key}).status == 200
    order = web.request(
        *("POST", "/orders", b'{"user_id": "u1", "amount": 1}'),
        JSON | {"Authorization": f"Bearer {good.key}"},
    )
    assert order.status == 200
    for headers in (
        {"X-API-Key": revoked.key},
        {"Authorization": f"Bearer {marks.new('bearer')}"},
        {"X-API-Key": marks.new("x-api-key")},
        {"X-API-Key": marks.new("one"), "Authorization": f"Bearer {marks.new('other')}"},
    ):
        assert web.get("/orders", **headers).status == 401
    web.get("/orders", Authorization=f"Basic {marks.new('basic')}")
    web.get("/orders", Cookie=f"sessionid={marks.new('cookie')}")
    web.get("/ops/", Cookie=f"sessionid={marks.new('session')}")
    web.get(f"/orders?api_key={marks.new('query')}")
    web.get(f"/orders/{order.json['order_id']}?token={marks.new('other-query')}")
    for asked, offered in (
        (f"/ws?api_key={marks.new('query-of-a-socket')}", None),
        ("/ws", [Subprotocol("bearer"), Subprotocol(marks.new("subprotocol"))]),
    ):
        url = f"ws://127.0.0.1:{web.port}{asked}"
        with suppress(InvalidHandshake), connect(url, subprotocols=offered, proxy=None):
            pass


def log_in(web: Web, marks: Marks) -> None:
    """With the wrong password, with it as the name, with the right one; and the operators' token."""
    User.objects.create_superuser("chief", password=marks.new("password"))
    for user, password in (
        ("chief", marks.new("wrong-password")),
        (marks.new("password-as-a-name"), "x"),
        ("chief", marks.new("password")),
    ):
        form = web.get("/admin/login/")
        cookie = form.header("set-cookie").partition(";")[0]
        [token] = re.findall(rb'name="csrfmiddlewaretoken" value="(\w+)"', form.body)[:1]
        body = urlencode(
            {"username": user, "password": password, "csrfmiddlewaretoken": token.decode()}
        )
        answer = web.request(
            *("POST", "/admin/login/?next=/admin/", body.encode()),
            {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status == (302 if password == marks.known["password"] else 200)
        for morsel in answer.header("set-cookie").split(", "):
            if morsel.startswith("sessionid="):
                marks.known["session of the chief"] = morsel.partition(";")[0].partition("=")[2]
    for token_sent in (marks.new("ops-token"), marks.new("wrong-ops-token")):
        web.get("/ops/status.json", Authorization=f"Bearer {token_sent}")


@pytest.mark.usefixtures("pipeline", "permissions")
def test_nothing_that_runs_tells_a_secret() -> None:
    marks = Marks()
    signing = marks.known["webhook secret"] = base64.b64encode(secrets.token_bytes(32)).decode()
    with (
        receiving() as receiver,
        provider_process() as provider,
        redis_user("marked", marks.new("redis")) as redis_url,
    ):
        provider.rules(AnswerRule(recipient=SMS["recipient"], status=401, times=1))
        providers = {
            "hook": {
                "kind": "webhook",
                "url": f"{provider.url}?key={marks.new('webhook-query')}",
                "secret": f"whsec_{signing}",
                "headers": {"Authorization": f"Bearer {marks.new('webhook-header')}"},
                "channels": ["sms"],
            },
            "mail": {
                "kind": "smtp",
                "url": f"smtp://us:{marks.new('smtp')}@127.0.0.1:{free_port()}",
                "sender": "us@example.org",
            },
        }
        environment = {
            "DATABASE_URL": with_password(
                child_environment()["DATABASE_URL"], marks.new("postgres")
            ),
            "REDIS_URL": redis_url,
            "PROVIDERS": json.dumps(providers),
            "DJANGO_SECRET_KEY": marks.new("secret-key"),
            "OPS_TOKEN": marks.new("ops-token"),
            "ADMIN_PASSWORD": marks.new("admin-password"),
            "LOG_LEVEL": "DEBUG",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={marks.new('otlp')}",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
        }
        specs = [spec_of(name, SERVICE_NAME=name, **environment) for name in PLAN.pipeline]
        with running_together(specs) as started:
            web = Web(urlsplit(started[0].health).port or 0, started[0])
            send_keys(web, marks)
            log_in(web, marks)
            for message in (SMS, MAIL):
                assert web.post("/api/v1/notifications", message).status == 201
            assert settles(lambda: _tried() == {"sms", "email"})
            DeadLetter.objects.create(
                handler="record_sales",
                event_id="0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f",
                topic="order-events",
                key="k",
                state=0,
                attempts=1,
                error="ValueError: it failed",
                next_attempt_at="2099-01-01T00:00:00Z",
            )
            # Not by force: the session is signed with a secret of the web process.
            cookie = {"Cookie": f"sessionid={marks.known['session of the chief']}"}
            places = {path: web.get(path, **cookie, **HTML).body.decode() for path in PAGES}
            for process in started[1:]:
                port = urlsplit(process.health).port or 0
                places[f"metrics of {port}"] = Web(port, process).get("/metrics").body.decode()
            assert [process.stop() for process in started] == [0] * len(started)
            places |= texts_of(started)
        assert receiver.spans
        places["spans"] = "\n".join(map(repr, receiver.spans))
    places |= rows_of(
        *("outbox.DeadLetter", "outbox.OutboxEvent", "outbox.DeadLetterAction"),
        *("notifications.Attempt", "apikeys.ApiKey", "admin.LogEntry"),
    )
    assert len(marks.known) > 20
    assert all(text for place, text in places.items() if place.startswith("/"))
    assert marks.found_in(places) == []


def _tried() -> set[str]:
    """Channels of which an attempt has failed."""
    failed = Attempt.objects.filter(error__isnull=False)
    return set(failed.values_list("notification__channel", flat=True))


def away(name: str, port: int, environment: Mapping[str, str]) -> Spec:
    """One of our processes that is not waited for: none of its servers is there."""
    given = child_environment(METRICS_PORT=str(port), SERVICE_NAME=name, **environment)
    return Spec(command_of(name, port), given)


def test_nothing_tells_a_secret_of_a_server_that_is_away(django_db_setup: None) -> None:
    """Errors of clients like to show whole addresses."""
    marks = Marks()
    nowhere = free_port()
    environment = {
        "DATABASE_URL": f"postgresql://us:{marks.new('postgres')}@127.0.0.1:{nowhere}/orders",
        "REDIS_URL": f"redis://us:{marks.new('redis')}@127.0.0.1:{nowhere}/0",
        "RABBITMQ_URL": f"amqp://us:{marks.new('rabbitmq')}@127.0.0.1:{nowhere}/",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{nowhere}",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_USERNAME": "us",
        "KAFKA_SASL_PASSWORD": marks.new("kafka"),
        "FEED_CACHE_URL": f"redis://us:{marks.new('cache')}@127.0.0.1:{nowhere}/1",
        "LOG_LEVEL": "DEBUG",
    }
    names = ("web", "worker-outbox", "worker-effects", "beat", "bridge", "relay")
    ports = [free_port() for _ in names]
    specs = [away(name, port, environment) for name, port in zip(names, ports, strict=True)]
    with running_together(specs) as started:

        def complains(process: Process) -> bool:
            said = process.log.read_text(errors="replace")
            return "refused" in said.lower() or "no answer" in said

        web = Web(ports[0], started[0])
        assert settles(lambda: _answers(web))
        places = {
            path: web.get(path, **HTML).body.decode()
            for path in ("/", "/health/ready", "/ops/", "/orders/1", "/metrics")
        }
        refused = web.post("/orders", {"user_id": "u1", "amount": 1})
        assert refused.status == 503
        places["refusal"] = refused.body.decode()
        assert settles(lambda: all(map(complains, started[1:]))), texts_of(started)
        places |= texts_of(started)
    assert marks.found_in(places) == []


def _answers(web: Web) -> bool:
    with suppress(OSError):
        return web.get("/health").status == 200
    return False


@pytest.mark.parametrize("form", ["plain", "quoted", "base64"])
def test_a_secret_is_found_in_any_form(form: str) -> None:
    marks = Marks()
    secret = marks.new("a/b")
    text = {
        "plain": secret,
        "quoted": quote(secret, safe=""),
        "base64": base64.b64encode(secret.encode()).decode(),
    }[form]
    [(name, place, _)] = marks.found_in({"log": f"before {text} after"})
    assert (name, place) == ("a/b", "log")
