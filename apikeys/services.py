"""Making, rotating and revoking keys. A change is seen by every web process within a second."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from apikeys.models import NAME, REVISION_LOCK, ApiKey, hash_of, make_key, prefix_of
from outbox.database.ask import row_of

__all__ = ["InvalidKey", "NewKey", "create_key", "note_use", "revoke_key", "rotate_key"]

ANONYMOUS = "anonymous"
NOTED_EVERY = timedelta(minutes=10)  # how coarse `last_used_at` is

log = structlog.get_logger("apikeys")


class InvalidKey(Exception):
    """The request cannot be fulfilled; the message says what can be done."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `key` is the secret: show it once, keep it nowhere."""

    key: str
    row: ApiKey


@transaction.atomic
def create_key(
    *, name: str, scopes: Collection[str], by: str, at: datetime, expires_at: datetime | None = None
) -> NewKey:
    """A key for a new caller. Raises InvalidKey, also when the name has a live key: two owners of
    one name would share histories, limits and idempotency keys."""
    _check(name, scopes, expires_at, at)
    _lock()
    if _live(at).filter(name=name).exists():
        raise InvalidKey(
            f"{name} has a live key: rotate or revoke that one, or choose another name."
        )
    return _store(name, scopes, expires_at, by)


@transaction.atomic
def rotate_key(*, prefix: str, grace: timedelta, by: str, at: datetime) -> NewKey:
    """A new key of the same name and scopes; the old one works for `grace` longer, at most until
    its own expiry, which the new one does not inherit. Raises InvalidKey."""
    if grace < timedelta(0):
        raise InvalidKey("The grace time cannot be negative; 0 revokes the old key now.")
    _lock()
    old = _live(at).filter(prefix=prefix).first()
    if old is None:
        raise InvalidKey(f"No live key has the prefix {prefix}. `api_keys list` shows the keys.")
    new = _store(old.name, old.scopes, None, by)
    old.expires_at = min(at + grace, old.expires_at or at + grace)
    old.save(update_fields=["expires_at"])
    log.info("api_key_rotated", prefix=prefix, expires_at=old.expires_at, by=by)
    return new


@transaction.atomic
def revoke_key(*, prefix: str, by: str, at: datetime) -> bool:
    """Revoke a key. Returns whether it was revoked now; False if it was revoked already. Raises
    InvalidKey."""
    _lock()
    row = ApiKey.objects.filter(prefix=prefix).first()
    if row is None:
        raise InvalidKey(f"No key has the prefix {prefix}. `api_keys list` shows the keys.")
    if row.revoked_at is not None:
        return False
    row.revoked_at = at
    row.save(update_fields=["revoked_at"])
    log.info("api_key_revoked", prefix=prefix, by=by)
    return True


def note_use(ids: Iterable[int]) -> None:
    """These were used just now. Written only where the last note is old; not a new revision."""
    due = Q(last_used_at=None) | Q(last_used_at__lt=Now() - NOTED_EVERY)
    ApiKey.objects.filter(due, id__in=sorted(ids)).update(last_used_at=Now())


def _check(name: str, scopes: Collection[str], expires_at: datetime | None, at: datetime) -> None:
    if not NAME.fullmatch(name) or name == ANONYMOUS:
        raise InvalidKey(
            "A name is 1 to 63 letters, digits and . _ @ -, begins with a letter or digit, "
            f"and is not {ANONYMOUS}."
        )
    known = settings.API_SCOPES
    if not scopes or not set(scopes) <= set(known):
        raise InvalidKey(f"Give one or more of the scopes {', '.join(known)}.")
    if expires_at is not None and expires_at <= at:
        raise InvalidKey("The expiry must be in the future.")


def _lock() -> None:
    """One change at a time; the trigger would take the same lock later."""
    row_of("SELECT pg_advisory_xact_lock(%s)", (REVISION_LOCK,))


def _live(at: datetime) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=at), revoked_at=None)


def _store(name: str, scopes: Collection[str], expires_at: datetime | None, by: str) -> NewKey:
    key = make_key()
    row = ApiKey.objects.create(
        name=name,
        prefix=prefix_of(key),
        sha256=hash_of(key),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    log.info("api_key_created", prefix=row.prefix, name=name, scopes=row.scopes, by=by)
    return NewKey(key, row)
