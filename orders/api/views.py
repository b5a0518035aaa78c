"""Endpoints of the orders app: parse, one call, answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast
from uuid import UUID

import msgspec
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from orders import queries, services
from orders.api import schema
from orders.api.commands import PLACE_ORDER, read_order
from orders.api.hot_reads import next_page
from orders.api.serializers import CancelSerializer, OrderPageSerializer
from orders.queries import OrderFilter
from orders.services import IllegalTransition, OrderNotFound
from outbox.database.round_trips import Change
from restapi.context import caller, trace_context
from restapi.errors import Conflict, id_in_path
from restapi.idempotency import key_of, respond_once

__all__ = ["CancelOrderView", "OrderView", "OrdersView", "PayView", "ShipView"]


class OrdersView(APIView):
    @schema.list_orders
    def get(self, request: Request) -> Response:
        """One page of orders, newest first, an array; the next page is in the Link header."""
        query = OrderPageSerializer.of(request)
        wanted = query.validated_data
        limit, after = wanted.pop("limit"), wanted.pop("cursor", None)
        page = queries.orders_page(narrowed=OrderFilter(**wanted), limit=limit, after=after)
        response = Response([msgspec.Raw(order.words) for order in page.orders])
        link = next_page(request.path, query.given(), page.next)
        if link:
            response["Link"] = link
        return response

    @schema.place_order
    def post(self, request: Request) -> HttpResponse:
        """Place an order, in either body; once for each Idempotency-Key."""
        return PLACE_ORDER.respond(key_of(request), lambda: read_order(request.data))


class OrderView(APIView):
    @schema.get_order
    def get(self, request: Request, order_id: str) -> Response:
        """One order with items, history and event ids."""
        parsed = id_in_path(order_id, "order")
        words = queries.order_in_words(parsed)
        if words is None:
            raise NotFound(f"There is no order {parsed}.")
        return Response(msgspec.Raw(words))


class _TransitionView(APIView):
    """A POST that moves an order to another status and answers with the order."""

    body: type[Serializer[object]] = Serializer  # no fields, but what comes must be an object
    change: Callable[..., None]  # the one call into the domain

    def post(self, request: Request, order_id: str) -> HttpResponse:
        """200 with the order, 404, or 409 with the status and what it allows; once for each
        Idempotency-Key."""
        parsed, key = id_in_path(order_id, "order"), key_of(request)  # before DRF reads the body

        def fields() -> dict[str, Any]:
            body = self.body(data=request.data)
            body.is_valid(raise_exception=True)
            return cast(dict[str, Any], body.validated_data)

        try:
            return respond_once(
                key,
                fields,
                write=partial(self._change_and_read, order_id=parsed),
                answer=lambda _, words: (200, msgspec.Raw(words)),
            )
        except OrderNotFound as error:
            raise NotFound(str(error)) from error
        except IllegalTransition as error:
            raise Conflict(str(error), status=error.status, allowed=list(error.allowed)) from error

    def _change_and_read(self, bodies: Sequence[dict[str, Any]], *, order_id: UUID) -> Change[str]:
        """The order as it is then; read before COMMIT: nothing can fail once the change is stored."""
        [fields] = bodies
        circumstances = {"actor": caller(), "at": timezone.now(), "trace": trace_context()}
        self.change(order_id=order_id, **fields, **circumstances)
        words = queries.order_in_words(order_id)
        if words is None:
            raise OrderNotFound(f"There is no order {order_id}.")
        return Change([words])


@schema.pay
class PayView(_TransitionView):
    change = staticmethod(services.pay_order)


@schema.ship
class ShipView(_TransitionView):
    change = staticmethod(services.ship_order)


@schema.cancel
class CancelOrderView(_TransitionView):
    body = CancelSerializer
    change = staticmethod(services.cancel_order)
