"""Any id leads to its journeys, and the page of a journey to the admin and back."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from devtools.testing.histories import order_events, place
from devtools.testing.posts import create_posts, new_post
from devtools.testing.web import Web
from feeds.events import events_of_post
from notifications.tests.samples import SMS, accept
from operations.journey import search
from outbox.models import DeadLetter, OutboxEvent
from outbox.tests.admin_pages import log_in
from restapi import idempotency
from restapi.models import IdempotencyRow

pytestmark = pytest.mark.django_db

ORDER = {"customerId": "c9", "items": [{"productId": "p1", "quantity": 1, "price": 1.5}]}


def an_order() -> tuple[str, OutboxEvent]:
    """Its id and its event."""
    order_id = place(at=timezone.now(), lines=[("p1", 1, "1")])
    [event] = order_events(order_id)
    return str(order_id), event


def found(text: str) -> set[str]:
    """The ids of the events that a search leads to."""
    return {str(view.journey.event_id) for view in search(text).journeys}


def test_orders_events_keys_and_correlation_ids() -> None:
    order_id, event = an_order()
    OutboxEvent.objects.filter(id=event.id).update(correlation_id="basket-7")
    event_id = str(event.event_id)
    assert found(event_id) == found("basket-7") == {event_id}
    assert event.key == order_id
    assert event_id in found(order_id)
    assert found("c1") >= found(order_id), "the customer's"
    for nothing in ("nonsense", str(uuid4()), "\0", "1"):
        assert not found(nothing)
        assert search(nothing).what == "Nothing has this id."


def test_a_post_and_a_notification() -> None:
    [post_id] = create_posts([new_post("ada", "hello")])
    assert events_of_post(post_id)[0] in found(str(post_id))
    [accepted] = accept(SMS)
    notification_id = str(accepted.id)
    assert found(notification_id) == {notification_id}


def test_an_idempotency_key_of_any_caller_leads_to_what_was_done_under_it() -> None:
    order_id, _ = an_order()
    IdempotencyRow.objects.create(
        id=idempotency.id_of("try-1", caller="anonymous", endpoint="POST /orders"),
        fingerprint=uuid4(),
        status=201,
        body=f'{{"orderId": "{order_id}"}}'.encode(),
    )
    assert found("try-1") == found(order_id)
    assert search("try-1").what.startswith("Idempotency key of: order")
    assert not found("try-2")


@pytest.mark.django_db(transaction=True)
def test_the_key_of_a_request_with_an_id_in_its_path_leads_to_what_it_did(web: Web) -> None:
    """As of a payment; over real HTTP, so the answer is the real one."""
    order_id = done(web, "POST", "/orders", ORDER)["orderId"]
    done(web, "POST", f"/orders/{order_id}/pay", {}, key="pay-1")
    assert found("pay-1") == found(order_id)
    assert search("pay-1").what.startswith("Idempotency key of: order")
    assert not found("pay-2")
    done(web, "POST", "/orders", ORDER, key="newer")
    looked_at = search("pay-1", answers=1)
    assert not looked_at.journeys
    assert any("newest 1 answers" in note for note in looked_at.notes)


def done(web: Web, method: str, path: str, body: object, *, key: str = "") -> dict[str, str]:
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    answer = web.request(method, path, body=json.dumps(body).encode(), headers=headers)
    assert answer.status < 300, answer.body
    found: dict[str, str] = answer.json
    return found


def test_the_page_shows_hops_and_dead_letters_and_leads_to_the_admin_and_back() -> None:
    order_id, event = an_order()
    letter = DeadLetter.objects.create(
        handler="record_sales",
        event_id=event.event_id,
        topic=event.topic,
        key=event.key,
        state=DeadLetter.State.DEAD,
        attempts=4,
        error="<boom>",
    )
    client = log_in()
    text = get(client, f"/ops/journey?id={order_id}")
    for said in ("committed", "waiting", "record_sales", "4 attempts", "&lt;boom&gt;"):
        assert said in text, said
    assert f'href="/admin/outbox/deadletter/{letter.id}/change/"' in text
    assert f'href="/admin/outbox/outboxevent/?q={event.event_id}"' in text
    back = f'href="/ops/journey?id={event.event_id}"'
    assert back in get(client, f"/admin/outbox/outboxevent/{event.id}/change/")
    assert back in get(client, f"/admin/outbox/deadletter/{letter.id}/change/")


def get(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return str(answer.content.decode())
