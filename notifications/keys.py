"""Idempotency keys of bodies: a repeated request is answered with the stored notification.

*Equal* means the same parsed values with their defaults, unlike for the header
(restapi/idempotency.py), which compares bytes. The locks are as there."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from notifications.queries import WORDS
from outbox.database.arrays import array_literal
from outbox.database.round_trips import Row, Statement
from restapi.idempotency import KEPT_HOURS, TRY_LOCKS, lock_of

__all__ = [
    "BodyKey",
    "KeyReused",
    "KeyRunning",
    "KeyTaken",
    "Keys",
    "NotificationRefused",
    "body_key",
    "id_of",
]


class BodyKey(msgspec.Struct, frozen=True, gc=False):
    """A key: `id` is hash of caller and text, `fingerprint` that of the parsed fields (32 hexadecimal
    digits each), `lock` the number of its advisory lock."""

    text: str
    id: str
    fingerprint: str
    lock: int


def body_key(text: str, *, caller: str, fields: object) -> BodyKey:
    """The key of a body whose parsed values are these; neither text nor caller has a NUL."""
    id_ = id_of(text, caller=caller)
    return BodyKey(text, id_, _hash(_canonical(fields)), lock_of(id_))


def id_of(text: str, *, caller: str) -> str:
    """Under which id this key of this caller is kept."""
    return _hash(f"notification\0{caller}\0{text}".encode())


_canonical = msgspec.json.Encoder(order="sorted").encode


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


class NotificationRefused(Exception):
    """It cannot be accepted in the present state. `place` is its index in the batch."""

    place = 0


class KeyTaken(NotificationRefused):
    """Its key belongs to an equal one: its id, and `words`, its JSON object."""

    def __init__(self, id_: str, words: str) -> None:
        super().__init__(id_)
        self.id, self.words = id_, words.encode()


class KeyReused(NotificationRefused):
    """Its key belongs to one that asks for something else."""


class KeyRunning(NotificationRefused):
    """The first one with its key is still under way."""


class Keys:
    """The keys of what is asked for together; None where there is none."""

    def __init__(self, keys: Sequence[BodyKey | None]) -> None:
        self._keys = keys
        self._first: dict[str, int] = {}
        for place, key in enumerate(keys):
            if key is not None:
                self._first.setdefault(key.id, place)
        self._locked: set[int] = set()
        # Fingerprint, id and words of what is there.
        self._kept: dict[str, tuple[str, str, str]] = {}

    def claim(self) -> list[Statement]:
        """Statements that try to lock the keys until the transaction ends and read the stored ones; an empty list
        without keys."""
        if not self._first:
            return []
        locks = sorted({key.lock for key in self._keys if key is not None})
        ids = array_literal(sorted(self._first))
        return [(TRY_LOCKS, (array_literal(locks),)), (READ_KEYS, (KEPT_HOURS, ids))]

    def note(self, rows: Sequence[Sequence[Row]]) -> None:
        """What the rows of `claim`, the first two, say."""
        if not self._first:
            return
        self._locked = {lock for lock, got in rows[0] if got}
        self._kept = {
            id_.hex: (fingerprint.hex, notification_id, words)
            for id_, fingerprint, notification_id, words in rows[1]
        }

    def refusal_of(self, place: int) -> NotificationRefused | None:
        """Why the notification at this place is refused; None: it is accepted."""
        key = self._keys[place]
        if key is None:
            return None
        if (kept := self._kept.get(key.id)) is not None:
            fingerprint, notification_id, words = kept
            if fingerprint == key.fingerprint:
                return KeyTaken(notification_id, words)
            return KeyReused()
        if self._first[key.id] != place or key.lock not in self._locked:
            return KeyRunning()
        return None


# A row that is past its time, or whose notification is gone, is as if it were not there.
READ_KEYS = f"""
    SELECT key.id, key.fingerprint, notifications.id::text, ({WORDS})::text
    FROM notification_keys AS key JOIN notifications ON notifications.id = key.notification_id
    WHERE key.created_at >= clock_timestamp() - make_interval(hours => %s)
      AND key.id = ANY(%s::uuid[])
"""
