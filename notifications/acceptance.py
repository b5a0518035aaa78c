"""Accepting notifications: look up keys, render templates, write rows. Everything is decided before
anything is written, and all rows are one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import uuid_utils
from django.conf import settings

from notifications.events import PENDING_EVENTS
from notifications.keys import KeyReused, KeyRunning, Keys, KeyTaken, NotificationRefused
from notifications.metrics import count_accepted
from notifications.models import LENGTHS
from notifications.queries import TemplateRow, read_templates, templates_of
from notifications.rows import Draft, Errors, NewNotification, inserting, inserting_batch
from notifications.template_text import MissingVariable, TooLong, rendered
from outbox.database.round_trips import Change, RoundTrip, Row, Statement, Steps
from outbox.publish.events import publishing

__all__ = [
    "Accepted",
    "AcceptedBatch",
    "KeyReused",
    "KeyRunning",
    "KeyTaken",
    "NewBatch",
    "NewNotification",
    "NotificationRefused",
    "Unfit",
    "accepting",
    "accepting_batches",
    "accepting_or_refusing",
    "drafts_of",
    "writing",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A notification that is stored: its id, and the JSON object that the contract shows."""

    id: str
    words: bytes


class NewBatch(msgspec.Struct, frozen=True, gc=False):
    """Notifications to accept together."""

    caller: str
    notifications: Sequence[NewNotification]


class AcceptedBatch(msgspec.Struct, frozen=True, gc=False):
    """The notifications in the order they were given, those of a known key as they are. `total` of
    them are new, and members of the batch."""

    id: str
    total: int
    created_at: datetime
    notifications: Sequence[Accepted]


class Unfit(NotificationRefused):
    """A field of it cannot be used; `errors` as of a body that is not valid."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(str(errors))
        self.errors = errors


def accepting(new: Sequence[NewNotification]) -> Change[Accepted] | Steps[Accepted | None]:
    """The results, and the statements that store them with their events. None for a refused
    one; `accepting_or_refusing` gives the reason."""
    if all(each.key is None and each.template_id is None for each in new):
        drafts = [_draft(each, each.content or "") for each in new]
        return Change([_accepted(draft) for draft in drafts], writing(drafts))
    return _asking(new)


def _asking(new: Sequence[NewNotification]) -> Steps[Accepted | None]:
    found = yield from drafts_of(new)
    drafts = [each for each in found if isinstance(each, Draft)]
    results = [_accepted(each) if isinstance(each, Draft) else None for each in found]
    return Change(results, writing(drafts))


def accepting_or_refusing(new: Sequence[NewNotification]) -> Steps[Accepted | None]:
    """The same. Raises the first refusal."""
    drafts = _not_refused((yield from drafts_of(new)))
    return Change([_accepted(draft) for draft in drafts], writing(drafts))


def accepting_batches(batches: Sequence[NewBatch]) -> Steps[AcceptedBatch | None]:
    """Store one batch, all of it or nothing. Raises the first refusal; a KeyTaken is none, its entry keeps the existing notification."""
    [batch] = batches
    id_, created_at = _new_id()
    found = yield from drafts_of(batch.notifications, batch_id=id_)
    drafts = _not_refused([each for each in found if not isinstance(each, KeyTaken)])
    accepted = [
        Accepted(each.id, each.words) if isinstance(each, KeyTaken) else _accepted(each)
        for each in found
        if isinstance(each, Draft | KeyTaken)
    ]
    row = inserting_batch(id_=id_, caller=batch.caller, total=len(drafts), created_at=created_at)
    written = writing(drafts)
    return Change(
        [AcceptedBatch(id_, len(drafts), created_at, accepted)],
        RoundTrip([row, *written.statements], written.on_commit),
    )


def _not_refused(found: Sequence[Draft | NotificationRefused]) -> list[Draft]:
    """All of them. Raises the first refusal."""
    drafts: list[Draft] = []
    for each in found:
        if isinstance(each, NotificationRefused):
            raise each
        drafts.append(each)
    return drafts


def _accepted(draft: Draft) -> Accepted:
    return Accepted(draft.id, draft.words())


def drafts_of(
    new: Sequence[NewNotification], *, batch_id: str | None = None
) -> Generator[RoundTrip, Sequence[Sequence[Row]], list[Draft | NotificationRefused]]:
    """The rows to write for each, or the reason for a refusal. One round trip, none without
    keys and templates. Writes nothing."""
    keys = Keys([each.key for each in new])
    wanted = sorted({each.template_id for each in new if each.template_id is not None})
    asked = [*keys.claim(), *([read_templates(wanted)] if wanted else [])]
    rows = (yield RoundTrip(asked)) if asked else []
    templates = templates_of(rows[-1]) if wanted else {}
    keys.note(rows)
    found: list[Draft | NotificationRefused] = []
    for place, each in enumerate(new):
        drafted = keys.refusal_of(place) or _drafted(each, templates, batch_id)
        if isinstance(drafted, NotificationRefused):
            drafted.place = place
        found.append(drafted)
    return found


def _drafted(
    new: NewNotification, templates: Mapping[str, TemplateRow], batch_id: str | None
) -> Draft | NotificationRefused:
    if new.stale:
        return Unfit(new.stale)
    if new.template_id is None:
        return _draft(new, new.content or "", batch_id=batch_id)
    template = templates.get(new.template_id)
    if template is None or not (new.sees_all or template.caller == new.caller):
        return _unfit("template_id", "There is no such template.")
    if template.channel != new.channel:
        return _unfit(
            "template_id",
            f"Must be a template of the notification's channel; this one is for {template.channel}.",
        )
    return _from_template(new, template, batch_id)


def _from_template(
    new: NewNotification, template: TemplateRow, batch_id: str | None
) -> Draft | NotificationRefused:
    at_most = LENGTHS[new.channel]
    try:
        text = rendered(template.body, new.variables or {}, at_most=at_most)
    except TooLong as error:
        return _unfit("template_variables", str(error))
    except MissingVariable as error:
        return _fallen_back(new, template, missing=str(error.args[0]), batch_id=batch_id)
    if not text.strip():
        return _unfit("template_variables", "Render to an empty text.")
    return _draft(new, text, template=template, is_rendered=True, batch_id=batch_id)


def _fallen_back(
    new: NewNotification, template: TemplateRow, *, missing: str, batch_id: str | None
) -> Draft | NotificationRefused:
    """With the content in place of a template that lacks a variable."""
    if new.unfit_content is not None:
        return _unfit("content", new.unfit_content)
    if new.content is None:
        return _unfit(
            "template_variables",
            f"Lacks the variable {missing}; send it, or content to use instead.",
        )
    return _draft(new, new.content, template=template, batch_id=batch_id)


def _unfit(field: str, message: str) -> Unfit:
    return Unfit({field: [message]})


def _draft(
    new: NewNotification,
    content: str,
    *,
    template: TemplateRow | None = None,
    is_rendered: bool = False,
    batch_id: str | None = None,
) -> Draft:
    id_, created_at = _new_id()
    return Draft(
        id=id_,
        batch_id=batch_id,
        new=new,
        content=content,
        is_rendered=is_rendered,
        template_name=template.name if template else None,
        expires_at=new.expires_at or _expiry(new, created_at),
        created_at=created_at,
    )


def _new_id() -> tuple[str, datetime]:
    """And the moment that it holds."""
    id_ = str(uuid_utils.uuid7())
    return id_, _EPOCH + timedelta(milliseconds=int(id_[:8] + id_[9:13], 16))


def _expiry(new: NewNotification, created_at: datetime) -> datetime:
    seconds: float = settings.NOTIFICATION_EXPIRES_SECONDS[new.priority]
    return (new.scheduled_at or created_at) + timedelta(seconds=seconds)


def writing(drafts: Sequence[Draft]) -> RoundTrip:
    """What stores them with their keys, and with the events of those that are to be sent now. The
    NOTIFICATION_PENDING of a notification has its id, so there is only one."""
    if not drafts:
        return RoundTrip()
    due = [draft for draft in drafts if draft.new.scheduled_at is None]
    published = publishing(
        [
            PENDING_EVENTS[draft.new.priority](
                event_id=draft.id, notification_id=draft.id, channel=draft.new.channel
            )
            for draft in due
        ],
        traces=[draft.new.trace for draft in due],
    )
    statements: list[Statement] = [*inserting(drafts), *published.statements]
    counts = Counter((draft.new.channel, draft.new.priority) for draft in drafts)
    return RoundTrip(statements, partial(_stored, counts, published.on_commit))


def _stored(counts: Mapping[tuple[str, str], int], then: Callable[[], None] | None) -> None:
    for (channel, priority), count in counts.items():
        count_accepted(channel, priority, count)
    if then is not None:
        then()
