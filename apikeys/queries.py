"""Reading keys."""

from __future__ import annotations

from dataclasses import dataclass

from apikeys.models import ApiKey

__all__ = ["KeyState", "changed_since"]


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a cache keeps of a key. `expires` is in seconds of the Unix clock, or infinite."""

    id: int
    sha256: bytes
    prefix: str
    name: str
    scopes: frozenset[str]
    expires: float
    revoked: bool
    revision: int


def changed_since(revision: int) -> list[KeyState]:
    """Every key that changed after `revision`, the revoked ones too; all of them from 0."""
    rows = ApiKey.objects.filter(revision__gt=revision).order_by("revision")
    return [
        KeyState(
            id=row.id,
            sha256=bytes(row.sha256),
            prefix=row.prefix,
            name=row.name,
            scopes=frozenset(row.scopes),
            expires=row.expires_at.timestamp() if row.expires_at else float("inf"),
            revoked=row.revoked_at is not None,
            revision=row.revision,
        )
        for row in rows
    ]
