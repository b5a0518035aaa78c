"""Which events the figures refuse, and the widest that they take."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from analytics.services import fold_additions, record_sales
from analytics.tests.lives import envelopes, figures, life
from outbox.envelope import EventEnvelope
from restapi.tests.tables import row_counts

GOOD = life("CREATED").events()[0].to_json()
CANCELLED = life("CREATED", "CANCELLED").events()[1].to_json()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload",
    [
        *("", "{}", "null", "[1]", '{"eventType":"ORDER_MELTED"}', "\udcff", '{"eventType":1}'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":-62.6'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":"NaN"'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":"Infinity"'),
        GOOD.replace('"quantity":2', '"quantity":-2'),
        GOOD.replace('"quantity":2', '"quantity":0'),
        GOOD.replace('"quantity":2', '"quantity":2.5'),
        GOOD.replace('"quantity":2', '"quantity":10001'),
        GOOD.replace('"quantity":2', f'"quantity":1{"0" * 5000}'),
        GOOD.replace('"productId":"p1"', f'"productId":"{"p" * 256}"'),
        GOOD.replace('"productId":"p1"', '"productId":""'),
        GOOD.replace('"productId":"p1"', '"productId":"p\\u00001"'),
        GOOD.replace('"customerId":"c"', f'"customerId":"{"c" * 256}"'),
        GOOD.replace('"customerId":"c"', '"customerId":"\\u0000"'),
        GOOD.replace('"orderId":"1"', f'"orderId":"{"1" * 256}"'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":9999999999999999999999999999'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":100000000000000000.01'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":1e999999999'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":0.005'),
        GOOD.replace('"totalPrice":62.6', '"totalPrice":1e-999999'),
        GOOD.replace('"price":42.5', '"price":42.505'),
        GOOD.replace('"price":42.5', '"price":-0.01'),
        GOOD.replace('"price":42.5', '"price":10000000000'),
        GOOD.replace('"price":42.5', '"price":"NaN"'),
        GOOD.replace("2026-03-12T12:00:30.000Z", "12 March"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-13-45T99:99:99.999Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-02-30T12:00:30.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T24:00:00.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:60.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "٢٠٢٦-03-12T12:00:30.000Z"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30.000Z\\n"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30.000+12:99"),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30Z"),
        CANCELLED.replace('"timestamp":"2026-03-13', '"timestamp":"2026-02-30'),
        CANCELLED.replace('"reason":""', f'"reason":"{"r" * 1001}"'),
        CANCELLED.replace('"previousStatus":"CREATED"', '"previousStatus":"CREATED\\n"'),
        GOOD.replace("2026-03-12T12:00:30.000Z", "2026-03-12T12:00:30.000+02:00"),
        CANCELLED.replace('"previousStatus":"CREATED"', '"previousStatus":"SHIPPED"'),
        CANCELLED.replace('"previousStatus":"CREATED"', '"previousStatus":"all"'),
    ],
)
def test_an_event_of_another_shape_stores_nothing(payload: str) -> None:
    [good] = envelopes(life("CREATED").events())
    bad = EventEnvelope(
        event_id=uuid4(),
        type="ORDER_CREATED",
        topic="order-events",
        key="1",
        source="/orders",
        time="",
        payload=payload,
    )
    assert payload not in (GOOD, CANCELLED)
    before = row_counts()
    with pytest.raises((msgspec.DecodeError, UnicodeEncodeError)):
        record_sales([good, bad])
    assert row_counts() == before


WIDEST = (
    GOOD.replace('"productId":"p1"', f'"productId":"{"é" * 255}"')
    .replace('"customerId":"c"', f'"customerId":"{"c" * 255}"')
    .replace('"quantity":2', '"quantity":10000')
    .replace('"price":42.5', '"price":9999999999.990')
    .replace('"totalPrice":62.6', '"totalPrice":9999999999990000.00')
    .replace("2026-03-12T12:00:30.000Z", "0001-01-01T00:00:00.000Z")
)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload",
    [
        WIDEST,
        GOOD.replace('"productId":"p1"', '"productId":" \\\\u0000 \\n"'),  # a text, and no NUL
        GOOD.replace('"totalPrice":62.6', '"totalPrice":0'),
        CANCELLED.replace('"reason":""', f'"reason":"{"r" * 1000}"'),
    ],
)
def test_what_our_writers_can_publish_is_taken(payload: str) -> None:
    assert payload not in (GOOD, CANCELLED)
    [good] = envelopes(life("CREATED").events())
    record_sales([msgspec.structs.replace(good, payload=payload)])
    assert fold_additions() == 1
    assert figures()
