"""The layer around applications of the test's own: what an application can do to it, and its log."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter as Spans

from apikeys.models import hash_of, make_key
from apikeys.queries import KeyState
from devtools.testing.receiver import spans_in_memory
from eventsite.web.gateway import metrics
from eventsite.web.gateway.access_log import AccessLog
from eventsite.web.gateway.asgi_types import Application, Message, Receive, Scope, Send
from eventsite.web.gateway.keyring import Keyring
from eventsite.web.gateway.layer import Gateway, Parts, Rules
from restapi.context import caller, trace_context

KEY = make_key()
FIXED = [(b"x-frame-options", b"DENY")]


def read_keys(revision: int, used: Collection[int]) -> list[KeyState]:
    scopes = frozenset({"orders:read"})
    return [KeyState(1, hash_of(KEY) or b"", KEY[:11], "shop", scopes, float("inf"), False, 1)]


def call(
    application: Application,
    *,
    path: str = "/orders",
    method: str = "GET",
    headers: list[tuple[bytes, bytes]] | None = None,
    body: list[bytes] | None = None,
    level: str = "INFO",
    max_body: int = 100,
    version: str = "",
    traced: bool = False,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one request."""
    sent: list[Message] = []
    pieces = list(body or [b""])

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        keyring = Keyring(read_keys)
        parts = Parts(
            rules=Rules(
                keys_required=False,
                trusted_proxies=0,
                max_body_bytes=max_body,
                headers=FIXED,
                traced=traced,
            ),
            keyring=keyring,
            limiter=None,
            access_log=AccessLog(service="web", level=level),
        )
        scope: Scope = {
            "type": "http", "method": method, "path": path, "query_string": b"",
            "headers": headers or [], "client": ("1.2.3.4", 5), "http_version": version,
        }  # fmt: skip
        try:
            await Gateway(application, parts)(scope, receive, send)
        finally:
            await keyring.close()

    asyncio.run(run())
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(each["body"] for each in rest)


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    """200 with what it got."""
    got = {
        "caller": caller(),
        "body": (await receive())["body"].decode(),
        "length": dict(scope["headers"]).get(b"content-length", b"").decode(),
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(got).encode()})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret detail")


async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("too late")


def counted(path: str, status: str) -> float:
    """How often this was counted, whatever the method."""
    return sum(
        sample.value
        for family in metrics.REQUESTS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
        and (sample.labels["path"], sample.labels["status"]) == (path, status)
    )


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]


def test_an_application_that_fails_is_a_500_like_every_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = counted("orders", "500")
    status, headers, body = call(fails)
    assert (status, json.loads(body)) == (500, {"error": "Internal error.", "details": []})
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"x-request-id"]
    assert counted("orders", "500") == before + 1
    [line] = [line for line in lines(capfd) if line["event"] == "request"]
    assert line["status"] == 500


def test_one_that_fails_in_its_answer_is_left_to_the_server() -> None:
    before = counted("orders", "200")
    with pytest.raises(RuntimeError, match="too late"):
        call(fails_late)
    assert counted("orders", "200") == before + 1


def test_the_caller_is_known_inside() -> None:
    key = [(b"authorization", b"Bearer " + KEY.encode())]
    assert json.loads(call(answers, headers=key)[2])["caller"] == "shop"
    assert json.loads(call(answers)[2])["caller"] == "anonymous"


def test_a_key_sent_twice_is_refused() -> None:
    one = (b"x-api-key", KEY.encode())
    assert call(answers, headers=[one])[0] == 200
    assert call(answers, headers=[one, one])[0] == 400


def test_ids_sent_twice_are_recreated() -> None:
    """W3C Trace Context, 3.2.2, has two traceparent headers ignored."""
    trace = (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
    ids = [(b"x-request-id", b"r"), (b"x-correlation-id", b"c")]
    _, once, _ = call(answers, headers=[trace, *ids])
    assert trace[1][:35] in once[b"traceparent"]
    assert (once[b"x-request-id"], once[b"x-correlation-id"]) == (b"r", b"c")
    status, twice, _ = call(answers, headers=[trace, trace, *ids, *ids])
    assert status == 200
    assert trace[1][:35] not in twice[b"traceparent"]
    assert twice[b"x-request-id"] == twice[b"x-correlation-id"]
    assert len(twice[b"x-request-id"]) == 36


def test_a_body_in_pieces_has_a_length() -> None:
    got = json.loads(call(answers, body=[b"ab", b"", b"cde"])[2])
    assert (got["body"], got["length"]) == ("abcde", "5")


def test_no_body_is_waited_for_where_none_is_announced() -> None:
    """A server that is asked for one here would only say that there is none."""
    host = (b"host", b"x")
    for announced in ((b"transfer-encoding", b"chunked"), (b"content-length", b"2")):
        _, _, body = call(answers, version="1.1", headers=[host, announced], body=[b"ab"])
        assert json.loads(body)["body"] == "ab"
    _, _, body = call(answers, version="1.1", headers=[host], body=[b"ab"])
    assert json.loads(body)["body"] == ""
    for version in ("2", "1", ""):
        assert json.loads(call(answers, version=version, body=[b"ab"])[2])["body"] == "ab"


@pytest.mark.parametrize(
    ("headers", "body"),
    [([(b"content-length", b"101")], [b""]), ([], [b"x" * 60, b"x" * 41]), ([], [b"x" * 101])],
)
def test_a_body_that_is_too_large(headers: list[tuple[bytes, bytes]], body: list[bytes]) -> None:
    before = counted("orders/<str:order_id>", "413")
    status, sent, _ = call(answers, path="/orders/x", headers=headers, body=body)
    assert (status, sent[b"connection"]) == (413, b"close")
    assert counted("orders/<str:order_id>", "413") == before + 1
    assert call(answers, body=[b"x" * 60, b"x" * 40])[0] == 200


@pytest.mark.parametrize("path", ["/nothing", "/\udce9", "/é\x00\n", "/" + "x" * 10_000])
def test_any_path_is_logged_and_none_is_a_label(
    path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = counted("unknown", "200")
    call(answers, path=path)
    assert counted("unknown", "200") == before + 1
    [line] = lines(capfd)
    assert line["route"] == "unknown"
    assert line["path"] in (path[:1_000], "/\\udce9")


def test_the_line_is_like_all_others(capfd: pytest.CaptureFixture[str]) -> None:
    ids = [
        (b"x-request-id", b"r-1"),
        (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
    ]
    call(answers, headers=ids, method="GET")
    [line] = lines(capfd)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line.pop("at"))
    assert line.pop("duration_ms") >= 0
    assert re.fullmatch("[0-9a-f]{16}", line.pop("span_id"))
    assert line == {
        "event": "request",
        "logger": "gateway",
        "level": "info",
        "service": "web",
        "method": "GET",
        "path": "/orders",
        "route": "orders",
        "status": 200,
        "caller": "anonymous",
        "correlation_id": "r-1",
        "trace_id": "a" * 32,
    }


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
def test_what_machines_ask_is_logged_too(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    call(answers, path=path)
    [line] = lines(capfd)
    assert (line["event"], line["path"], line["status"]) == ("request", path, 200)


def test_no_line_where_only_warnings_are_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    call(answers, level="WARNING")
    assert lines(capfd) == []


class TestTheSpan:
    """Of each request, where spans are taken."""

    @pytest.fixture
    def spans(self, monkeypatch: pytest.MonkeyPatch) -> Spans:
        return spans_in_memory(monkeypatch)

    def only(self, spans: Spans) -> ReadableSpan:
        [span] = spans.get_finished_spans()
        assert encode_spans([span]).SerializeToString()
        assert not trace.get_current_span().get_span_context().is_valid
        return span

    def test_has_the_ids_of_the_line_of_the_answer_and_of_what_is_stored(
        self, spans: Spans, capfd: pytest.CaptureFixture[str]
    ) -> None:
        seen: list[str] = []

        async def looks(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(trace_context().traceparent)
            await answers(scope, receive, send)

        _, headers, _ = call(looks, traced=True)
        context = self.only(spans).context
        assert context is not None
        ids = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        [line] = lines(capfd)
        assert (line["trace_id"], line["span_id"]) == ids
        assert headers[b"traceparent"].decode() == seen[0]
        assert tuple(seen[0].split("-")[1:3]) == ids

    def test_is_named_after_the_pattern(self, spans: Spans) -> None:
        call(answers, path="/orders/secret/pay", method="POST", traced=True)
        span = self.only(spans)
        assert span.name == "POST orders/<str:order_id>/pay"
        assert (span.attributes or {})["url.path"] == "/orders/secret/pay"

    @pytest.mark.parametrize("path", ["/nothing", "/\udce9"])
    def test_of_an_unknown_path_is_named_after_nothing(self, spans: Spans, path: str) -> None:
        call(answers, path=path, method="BREW", traced=True)
        span = self.only(spans)
        assert span.name == "HTTP"
        assert (span.attributes or {})["http.request.method"] == "_OTHER"

    def test_of_an_application_that_fails_says_why(self, spans: Spans) -> None:
        call(fails, traced=True)
        span = self.only(spans)
        assert not span.status.is_ok
        assert (span.attributes or {})["http.response.status_code"] == 500
        [event] = span.events
        assert (event.attributes or {})["exception.message"] == "secret detail"

    def test_of_one_that_fails_in_its_answer_is_an_error_too(self, spans: Spans) -> None:
        with pytest.raises(RuntimeError, match="too late"):
            call(fails_late, traced=True)
        assert not self.only(spans).status.is_ok

    def test_of_a_refusal_is_no_error(self, spans: Spans) -> None:
        call(answers, body=[b"x" * 101], traced=True)
        span = self.only(spans)
        assert span.status.is_ok
        assert (span.attributes or {})["http.response.status_code"] == 413

    def test_is_not_made_where_nobody_takes_it(self, spans: Spans) -> None:
        call(answers)
        assert spans.get_finished_spans() == ()
