"""Endpoints of batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from notifications import acceptance, queries, services
from notifications.acceptance import NewBatch
from notifications.api import schema
from notifications.api.commands import accepted_batch, asking, owner
from notifications.api.reading import read_batch
from notifications.api.refusals import as_errors
from notifications.api.views import without_fields
from notifications.bounds import MAX_BATCH_BYTES
from notifications.queries import Owner
from outbox.database.round_trips import Change
from restapi.context import caller
from restapi.errors import id_in_path
from restapi.idempotency import key_of, respond_once
from restapi.json import JSONParser

__all__ = ["BatchView", "BatchesView", "CancelBatchView"]


class BatchParser(JSONParser):
    """Bodies of batches, which may be large, and are read on a thread."""

    at_most = MAX_BATCH_BYTES


class BatchesView(APIView):
    parser_classes = (BatchParser,)

    @schema.create_batch
    def post(self, request: Request) -> HttpResponse:
        """Accept up to 1,000 at once, all or none; once for each Idempotency-Key."""
        key = key_of(request)  # before DRF reads the body
        with as_errors(in_batch=True):
            return respond_once(
                key,
                lambda: NewBatch(caller(), read_batch(request.data, asking())),
                write=acceptance.accepting_batches,
                answer=accepted_batch,
            )


class BatchView(APIView):
    @schema.get_batch
    def get(self, request: Request, batch_id: str) -> Response:
        """A batch with its counts as they are now."""
        return Response(msgspec.Raw(_words_of(id_in_path(batch_id, "batch"), owner())))


class CancelBatchView(APIView):
    @schema.cancel_batch
    def patch(self, request: Request, batch_id: str) -> HttpResponse:
        """Cancel those that are not under way; once for each Idempotency-Key."""
        id_, key = id_in_path(batch_id, "batch"), key_of(request)
        return respond_once(
            key,
            lambda: without_fields(request, id_),
            write=partial(_cancel, whose=owner()),
            answer=lambda _, cancelled: (200, cancelled),
        )


def _cancel(ids: Sequence[UUID], *, whose: Owner) -> Change[dict[str, Any]]:
    [id_] = ids
    changed = services.cancel_batch(id_, owner=whose)
    return Change([{"cancelled": len(changed), "batch": msgspec.Raw(_words_of(id_, whose))}])


def _words_of(id_: UUID, whose: Owner) -> str:
    words = queries.batch_in_words(id_, whose)
    if words is None:
        raise NotFound(f"There is no batch {id_}.")
    return words
