"""What the API of notifications refuses, over real HTTP; it stores nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from devtools.testing.web import JSON, Web, assert_error
from eventsite.tests.notification_requests import (
    API,
    BATCH,
    NO_OBJECTS,
    NOBODY,
    NOTIFICATIONS,
    TEMPLATE,
    TEMPLATES,
    TIMES,
    fields_of,
    refused_by_length,
)
from notifications.tests.samples import EMAIL, PUSH, SMS
from notifications.tests.test_reading import WRONG
from notifications.tests.test_recipients import NO_RECIPIENTS


@pytest.mark.usefixtures("nothing_stored")
class TestRefused:
    """Each with a 400 that names the field, and nothing stored."""

    def test_every_field_wrong(self, refusing_web: Web) -> None:
        for change, field in WRONG:
            if field not in TIMES:
                body = SMS | change
                assert fields_of(refusing_web.post(NOTIFICATIONS, body)) == [field], body

    def test_fields_that_are_missing(self, refusing_web: Web) -> None:
        for field in SMS:
            body = {name: SMS[name] for name in SMS if name != field}
            assert fields_of(refusing_web.post(NOTIFICATIONS, body)) == [field]

    def test_recipients(self, refusing_web: Web) -> None:
        """What is no recipient of its channel; and what is one, of the other channels."""
        others = [("sms", EMAIL), ("sms", PUSH), ("email", SMS), ("email", PUSH)]
        for channel, recipient in (
            *NO_RECIPIENTS,
            *((channel, body["recipient"]) for channel, body in others),
        ):
            body = SMS | {"channel": channel, "recipient": recipient}
            assert fields_of(refusing_web.post(NOTIFICATIONS, body)) == ["recipient"], body

    def test_times(self, refusing_web: Web) -> None:
        year = datetime.now(UTC).year + 1
        for field in TIMES:
            for value in (
                "2020-01-01T00:00:00Z",
                f"{year}-01-01T00:00:00",
                f"{year}-01-01T00:00:60Z",
                f"{year}-01-01",
                "9999-12-31T23:59:59Z",
                f"{year + 2}-01-01T00:00:00Z",
                "x",
                1,
            ):
                assert fields_of(refusing_web.post(NOTIFICATIONS, SMS | {field: value})) == [field]

    def test_bodies(self, refusing_web: Web) -> None:
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 5000):
            for path in (NOTIFICATIONS, BATCH, TEMPLATES):
                assert_error(refusing_web.request("POST", path, body, JSON), 400)
        for path in (NOTIFICATIONS, BATCH, TEMPLATES):
            assert_error(refusing_web.request("POST", path, b"{}", {"Content-Type": "x/y"}), 415)

    def test_batches(self, refusing_web: Web) -> None:
        nothing: tuple[Any, ...] = (None, {}, "x", [], [SMS] * 1001)
        body: Any
        for value in nothing:
            body = {"notifications": value}
            assert fields_of(refusing_web.post(BATCH, body)) == ["notifications"]
        one_bad = [SMS] * 999 + [SMS | {"recipient": "x"}]
        assert fields_of(refusing_web.post(BATCH, {"notifications": one_bad})) == [
            "notifications.999.recipient"
        ]
        for item in NO_OBJECTS:
            body = {"notifications": [SMS, item]}
            assert fields_of(refusing_web.post(BATCH, body)) == ["notifications.1"]
        keyed = SMS | {"idempotency_key": "k"}
        answer = refusing_web.post(BATCH, {"notifications": [keyed, SMS, keyed]})
        assert fields_of(answer) == ["notifications.2.idempotency_key"]

    def test_a_batch_of_nine_mebibytes(self, refusing_web: Web) -> None:
        """It is refused by its length; eight are read, though what is in them is refused. Other paths
        take one."""
        for mebibytes, path in ((9, BATCH), (2, NOTIFICATIONS)):
            assert refused_by_length(refusing_web, path, mebibytes * 2**20) == 413
        items = [EMAIL | {"content": "x" * 2**20}] * 7
        body = json.dumps({"notifications": items}).encode()
        assert_error(refusing_web.request("POST", BATCH, body, JSON), 400)

    def test_templates(self, refusing_web: Web) -> None:
        for field, value in (
            ("body", "{{.Name"),
            ("body", "{{{.Name}}}"),
            ("body", "{{.A{{.B}}}}"),
            ("body", "{{upper .Name}}"),
            ("body", "x" * 100_000),
            ("body", ""),
            ("body", 1),
            ("body", None),
            ("name", ""),
            ("name", "x" * 256),
            ("name", ["x"]),
            ("channel", "fax"),
            ("channel", None),
        ):
            assert fields_of(refusing_web.post(TEMPLATES, TEMPLATE | {field: value})) == [field]
        for field in TEMPLATE:
            body = {name: TEMPLATE[name] for name in TEMPLATE if name != field}
            assert fields_of(refusing_web.post(TEMPLATES, body)) == [field]

    def test_what_is_not_there(self, refusing_web: Web) -> None:
        for id_ in (NOBODY, "x", "null", "1", "%00", f"{NOBODY}x"):
            for method, path in (
                ("GET", f"{NOTIFICATIONS}/{id_}"),
                ("GET", f"{NOTIFICATIONS}/{id_}/attempts"),
                ("PATCH", f"{NOTIFICATIONS}/{id_}/cancel"),
                ("POST", f"{NOTIFICATIONS}/{id_}/retry"),
                ("GET", f"{API}/batches/{id_}"),
                ("PATCH", f"{API}/batches/{id_}/cancel"),
                ("GET", f"{TEMPLATES}/{id_}"),
                ("PUT", f"{TEMPLATES}/{id_}"),
                ("DELETE", f"{TEMPLATES}/{id_}"),
                ("POST", f"{TEMPLATES}/{id_}/preview"),
            ):
                body = json.dumps(TEMPLATE).encode() if method == "PUT" else b"{}"
                assert_error(refusing_web.request(method, path, body, JSON), 404)

    def test_other_methods(self, refusing_web: Web) -> None:
        for method, path in (
            ("DELETE", NOTIFICATIONS),
            ("GET", BATCH),
            ("POST", f"{NOTIFICATIONS}/{NOBODY}/cancel"),
            ("PATCH", f"{NOTIFICATIONS}/{NOBODY}/retry"),
            ("PATCH", f"{TEMPLATES}/{NOBODY}"),
            ("POST", f"{API}/metrics"),
        ):
            answer = refusing_web.request(method, path, b"{}", JSON)
            assert_error(answer, 405)
            assert answer.header("allow")

    def test_filters_and_cursors(self, refusing_web: Web) -> None:
        for query, field in (
            ("status=sent", "status"),
            ("channel=SMS", "channel"),
            ("recipient=", "recipient"),
            ("recipient=%00", "recipient"),
            ("recipient=a&recipient=b", "recipient"),
            ("batch_id=x", "batch_id"),
            ("date_from=yesterday", "date_from"),
            ("date_to=2026-13-01", "date_to"),
            ("page_size=0", "page_size"),
            ("page_size=101", "page_size"),
            ("page_size=1_0", "page_size"),
            ("cursor=", "cursor"),
            ("cursor=x", "cursor"),
            ("cursor=AZj3pFwee3qdL05qjAsdPx", "cursor"),  # bits behind the last byte
            ("cursor=AZj3pFwee3qdL05qjAsdPw==", "cursor"),
            ("cursor=%FF", "cursor"),
        ):
            assert fields_of(refusing_web.get(f"{NOTIFICATIONS}?{query}")) == [field], query
        assert refusing_web.get(f"{NOTIFICATIONS}?cursor=AZj3pFwee3qdL05qjAsdPw").status == 200
