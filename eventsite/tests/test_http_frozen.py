"""A PostgreSQL that was stopped in the middle of its work: it acknowledges TCP and says nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

import psycopg
import pytest
from django.conf import settings

from devtools.localstack import LocalStack
from devtools.localstack.processes import PLAN
from devtools.testing.pipeline import settles
from devtools.testing.web import Answer, Web

ANSWERED_WITHIN, ADMIN_ANSWERED_WITHIN = 10.0, 15.0  # seconds: the promise
PASSWORD = "correct horse battery staple"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NOTIFICATIONS = "/api/v1/notifications"
DONE = {200, 201, 202}
IN_DJANGO = settings.WEB_THREADS + 3
WEB_ONLY = PLAN.only("web")


@dataclass(frozen=True)
class Told:
    """An answer and how long it took, in seconds."""

    answer: Answer
    seconds: float


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    own = {
        "DJANGO_SETTINGS_MODULE": "eventsite.settings.local",
        "ADMIN_USERNAME": "admin",
        "ADMIN_PASSWORD": PASSWORD,
    }
    with LocalStack.ephemeral(
        own_servers=True, kafka="tansu", plan=WEB_ONLY, extra_env=own, report=lambda _: None
    ) as started:
        yield started


class Client(Web):
    """The web process of a stack, a minute's patience for each answer."""

    def request(self, *args: object, **options: object) -> Answer:
        return super().request(*args, **{"timeout": 60.0, **options})  # type: ignore[arg-type]


@pytest.fixture
def web(stack: LocalStack) -> Web:
    return Client(int(stack.env["PORT"]), None)  # type: ignore[arg-type]  # nobody looks at it


@contextmanager
def frozen(stack: LocalStack) -> Iterator[None]:
    server = stack.server("postgres")
    server.pause()
    try:
        yield
    finally:
        server.resume()


def sms(content: str) -> dict[str, object]:
    return {"recipient": "+905000000000", "channel": "sms", "content": content}


def order(customer: str) -> dict[str, object]:
    return {"customerId": customer, "items": [{"productId": "p", "quantity": 1, "price": 2}]}


# What a request of each kind stores under the name of its run.
STORED = {
    "order": "SELECT count(*) FROM orders WHERE customer_id = %s",
    "post": "SELECT count(*) FROM posts WHERE author_id = %s",
    "follow": "SELECT count(*) FROM follows WHERE follower_id = %s",
    "notification": "SELECT count(*) FROM notifications WHERE content = %s",
}


def stored(stack: LocalStack, name: str, kind: str = "order") -> int:
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        row = connection.execute(STORED[kind], (name,)).fetchone()
        assert row
        return int(row[0])


def logged_in(web: Web) -> str:
    """The cookie of a session of the admin."""
    page = web.get("/admin/login/?next=/admin/")
    [token] = re.findall(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
    form = urlencode(
        {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token.decode()}
    )
    cookie = page.header("set-cookie").partition(";")[0]
    answer = web.request("POST", "/admin/login/", form.encode(), {**FORM, "Cookie": cookie})
    assert answer.status == 302, answer.body
    [session] = re.findall(r"sessionid=\w+", answer.header("set-cookie"))
    return str(session)


def login_form(web: Web) -> Callable[[], Answer]:
    """Somebody who has the form and sends it later."""
    page = web.get("/admin/login/")
    [token] = re.findall(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
    form = urlencode({"username": "a", "password": "b", "csrfmiddlewaretoken": token.decode()})
    cookie = {**FORM, "Cookie": page.header("set-cookie").partition(";")[0]}
    return lambda: web.request("POST", "/admin/login/", form.encode(), cookie)


def timed(ask: Callable[[], Answer]) -> Told:
    begin = time.monotonic()
    return Told(ask(), time.monotonic() - begin)


def all_at_once(requests: dict[str, Callable[[], Answer]]) -> dict[str, Told]:
    with ThreadPoolExecutor(len(requests)) as pool:
        asked = {name: pool.submit(timed, ask) for name, ask in requests.items()}
        return {name: each.result() for name, each in asked.items()}


def assert_told(told: dict[str, Told]) -> None:
    """Each in time, with its own words."""
    for name, each in told.items():
        bound = ADMIN_ANSWERED_WITHIN if "admin" in name else ANSWERED_WITHIN
        assert each.seconds < bound, (name, each)
        assert each.answer.status == 503, (name, each)
        assert int(each.answer.header("retry-after")) > 0, name
        body = each.answer.json
        if name.startswith("read"):
            assert body.keys() == {"error", "details"}, (name, body)
            assert "stored" not in body["error"], (name, body)
        elif name.startswith("write"):
            assert body["outcome"] in ("unknown", "not_stored"), (name, body)


@dataclass(frozen=True)
class Made:
    """What there is before PostgreSQL stands, to be read and changed: ids."""

    order: str
    post: int
    notification: str

    @classmethod
    def by(cls, web: Web) -> Made:
        """One of each, and a feed with the post."""
        web.post("/follow", {"follower_id": "ann", "followee_id": "ada"})
        return cls(
            web.post("/orders", order("before")).json["orderId"],
            web.post("/posts", {"author_id": "ada", "content": "before"}).json["post_id"],
            web.post(NOTIFICATIONS, sms("before")).json["id"],
        )


def requests_of(
    web: Web, run: str, made: Made, session: str, log_in: Callable[[], Answer]
) -> dict[str, Callable[[], Answer]]:
    """Each kind, and more for Django than it has threads."""
    key = {"Idempotency-Key": run}
    reads = {
        f"read {path}": lambda path=path: web.get(path)
        for path in (
            "/orders",
            "/orders?limit=1",
            f"/orders/{made.order}",
            "/analytics/summary",
            "/analytics/metrics?metric_name=revenue_total",
            "/analytics/top-products",
            "/feeds/ann",
            "/feeds/nobody",
            f"/feeds/ann?before={made.post}&expand=posts",
            f"/posts/{made.post}",
            "/users/ann/following",
            NOTIFICATIONS,
            f"{NOTIFICATIONS}/{made.notification}",
        )
    }
    many = {
        f"write {number}": lambda number=number: web.post(
            "/orders?by=django", order(f"{run}-{number}")
        )
        for number in range(IN_DJANGO)
    }
    return {
        "write keyed": lambda: web.post("/orders", order(f"{run}-keyed"), key),
        "write pay": lambda: web.post(f"/orders/{made.order}/pay"),
        "write post": lambda: web.post("/posts", {"author_id": run, "content": "words"}),
        "write follow": lambda: web.post("/follow", {"follower_id": run, "followee_id": "ada"}),
        "write notification": lambda: web.post(NOTIFICATIONS, sms(run)),
        **reads,
        **many,
        "admin": lambda: web.get("/admin/orders/order/", Cookie=session),
        "admin login": log_in,
    }


def assert_operators_are_answered(web: Web) -> None:
    ready = web.request("GET", "/health/ready", timeout=ANSWERED_WITHIN)
    assert ready.status == 503
    assert ready.json["status"] == "not ready"
    assert ready.json["checks"]["database"] == "unhealthy"
    assert ready.json["checks"]["redis"] == "healthy"
    assert int(ready.header("retry-after")) > 0
    assert web.request("GET", "/health", timeout=ANSWERED_WITHIN).status == 200
    assert web.request("GET", "/metrics", timeout=ANSWERED_WITHIN).status == 200


def given_up(web: Web) -> float:
    text = web.get("/metrics").body.decode()
    return sum(float(each) for each in re.findall(r"^database_given_up_total.* (\S+)$", text, re.M))


def test_everybody_is_answered_in_time_and_all_works_on(stack: LocalStack, web: Web) -> None:
    made = Made.by(web)
    session, log_in = logged_in(web), login_form(web)
    warm = requests_of(web, "warm", made, session, lambda: web.get("/admin/login/"))
    assert {each.answer.status for each in all_at_once(warm).values()} <= DONE
    made = Made.by(web)
    before, process = given_up(web), stack.process("web").pid
    with ThreadPoolExecutor(2) as pool:
        with frozen(stack):
            first = pool.submit(timed, lambda: web.post("/orders", order("first")))
            time.sleep(0.3)  # until it is under way
            operators = pool.submit(assert_operators_are_answered, web)
            told = all_at_once(requests_of(web, "during", made, session, log_in))
            operators.result()
            told["write first"] = first.result()
            # Now there is no connection left: they would need new ones.
            again = all_at_once(requests_of(web, "again", made, session, log_in))
        assert_told(told)
        assert_told(again)
    outcome = told["write first"].answer.json["outcome"]
    # The hot path had sent COMMIT along; the server gets to it when it goes on.
    assert outcome == ("unknown" if settings.HOT_PATHS else "not_stored")
    assert given_up(web) > before

    assert settles(lambda: web.post("/orders", order("after")).status == 201)
    if settings.HOT_PATHS:
        assert settles(lambda: stored(stack, "first") == 1)
    for run, all_told in (("during", told), ("again", again)):
        for number in range(IN_DJANGO):
            if all_told[f"write {number}"].answer.json["outcome"] == "not_stored":
                assert stored(stack, f"{run}-{number}") == 0
        for kind in ("post", "follow", "notification"):
            if all_told[f"write {kind}"].answer.json["outcome"] == "not_stored":
                assert stored(stack, run, kind) == 0, kind
        keyed = web.post("/orders", order(f"{run}-keyed"), {"Idempotency-Key": run})
        assert keyed.status == 201
        assert stored(stack, f"{run}-keyed") == 1
    found = all_at_once(requests_of(web, "found", made, session, log_in))
    statuses = {name: each.answer.status for name, each in found.items()}
    assert set(statuses.values()) <= DONE, statuses
    assert [stored(stack, "found", kind) for kind in ("post", "follow", "notification")] == [1] * 3
    assert web.get("/health/ready").json["status"] == "ready"
    assert stack.process("web").pid == process
