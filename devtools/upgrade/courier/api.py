"""POST /deliveries of the newer release."""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from devtools.upgrade.courier import services
from restapi.answers import to_response
from restapi.hot_path import Asked, HotPath
from restapi.idempotency import Keyed, key_of
from restapi.json import parse_json
from restapi.operations import Body, Operations, answer

__all__ = ["DeliveriesView"]

API = Operations("courier")
AN_ID = "0198f7a4-5c1e-7b3a-9d2f-4e6a8c0b1d3f"


class DeliveryBody(serializers.Serializer[object]):
    """What it takes."""

    order_id = serializers.UUIDField()


class ToldDelivery(serializers.Serializer[object]):
    """What it answers."""

    event_id = serializers.UUIDField()


def _order_id(body: object) -> str:
    fields = DeliveryBody(data=body)
    fields.is_valid(raise_exception=True)
    return str(fields.validated_data["order_id"])


def _read(asked: Asked) -> str:
    return _order_id(parse_json(asked.body))


def _told(order_id: str, event_id: str) -> tuple[int, dict[str, str]]:
    return 201, {"event_id": event_id}


DELIVER = HotPath(
    method="POST",
    path="/deliveries",
    route="deliveries",
    read=_read,
    write=services.delivering,
    answer=_told,
)


@extend_schema_view(
    post=API.write(
        "deliverOrder",
        "Tell of a delivery",
        body=Body(DeliveryBody, {"delivery": {"order_id": AN_ID}}),
        answers={201: answer(ToldDelivery, {"event_id": AN_ID})},
    )
)
class DeliveriesView(APIView):
    """/deliveries"""

    def post(self, request: Request) -> HttpResponse:
        """Once for each Idempotency-Key."""
        key = key_of(request)  # before DRF reads the body
        [done] = DELIVER.perform([Keyed(_order_id(request.data), key)])
        return to_response(done)
