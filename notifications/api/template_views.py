"""Endpoints of templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from django.http import HttpResponse
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from notifications import services
from notifications.api import schema
from notifications.api.commands import owner
from notifications.api.fields import (
    ChangedTemplateSerializer,
    PreviewSerializer,
    TemplateSerializer,
)
from notifications.models import LENGTHS, Template
from notifications.queries import templates_of_owner
from notifications.services import NameTaken
from notifications.template_text import MissingVariable, TooLong, rendered
from outbox.database.round_trips import Change
from outbox.envelope import rfc3339
from restapi.context import caller
from restapi.errors import Conflict, id_in_path
from restapi.idempotency import key_of, respond_once

__all__ = ["PreviewView", "TemplateView", "TemplatesView"]

Fields = dict[str, Any]


def shown(template: Template) -> Fields:
    """A template as the API shows it."""
    return {
        "id": str(template.id),
        "name": template.name,
        "channel": template.channel,
        "body": template.body,
        "created_at": rfc3339(template.created_at),
        "updated_at": rfc3339(template.updated_at),
    }


def _found(template_id: str) -> Template:
    id_ = id_in_path(template_id, "template")
    template = templates_of_owner(owner()).filter(id=id_).first()
    if template is None:
        raise NotFound(f"There is no template {id_}.")
    return template


def _stored(
    request: Request,
    serializer: Callable[..., Serializer[object]],
    store: Callable[[Fields], Template],
    status: int,
) -> HttpResponse:
    """What `store` makes of the fields of a valid body; once for each Idempotency-Key."""
    key = key_of(request)  # before DRF reads the body

    def read() -> Fields:
        body = serializer(data=request.data)
        body.is_valid(raise_exception=True)
        return cast(Fields, body.validated_data)

    def write(commands: Sequence[Fields]) -> Change[Fields]:
        return Change([shown(store(fields)) for fields in commands])

    try:
        return respond_once(key, read, write=write, answer=lambda _, template: (status, template))
    except NameTaken as error:
        raise Conflict(f"There is a template named {error} already.") from error


class TemplatesView(APIView):
    @schema.list_templates
    def get(self, request: Request) -> Response:
        """The caller's templates, by name."""
        return Response({"data": [shown(each) for each in templates_of_owner(owner())]})

    @schema.create_template
    def post(self, request: Request) -> HttpResponse:
        return _stored(request, TemplateSerializer, self._create, 201)

    def _create(self, fields: Fields) -> Template:
        return services.create_template(caller=caller(), **fields)


class TemplateView(APIView):
    @schema.get_template
    def get(self, request: Request, template_id: str) -> Response:
        """One of the caller's."""
        return Response(shown(_found(template_id)))

    @schema.change_template
    def put(self, request: Request, template_id: str) -> HttpResponse:
        """Another name and body; it keeps its channel."""
        id_in_path(template_id, "template")

        def change(fields: Fields) -> Template:
            # Behind the key: who asks again is answered again, also when it was deleted meanwhile.
            there = _found(template_id)
            if fields.get("channel", there.channel) != there.channel:
                raise ValidationError({"channel": [f"Cannot be changed; it is {there.channel}."]})
            changed = services.change_template(
                there.id, owner=owner(), name=fields["name"], body=fields["body"]
            )
            if changed is None:
                raise NotFound(f"There is no template {there.id}.")
            return changed

        return _stored(request, ChangedTemplateSerializer, change, 200)

    @schema.delete_template
    def delete(self, request: Request, template_id: str) -> Response:
        """Delete it; notifications keep its text and its id."""
        id_ = id_in_path(template_id, "template")
        if not services.delete_template(id_, owner=owner()):
            raise NotFound(f"There is no template {id_}.")
        return Response(status=204)


class PreviewView(APIView):
    @schema.preview_template
    def post(self, request: Request, template_id: str) -> Response:
        """The text that these variables make of it; nothing is stored."""
        template = _found(template_id)
        body = PreviewSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        at_most = LENGTHS[template.channel]
        try:
            content = rendered(template.body, body.validated_data["variables"], at_most=at_most)
        except MissingVariable as error:
            raise ValidationError(
                {"variables": [f"Lacks the variable {error.args[0]}."]}
            ) from error
        except TooLong as error:
            raise ValidationError({"variables": [str(error)]}) from error
        return Response({"content": content})
