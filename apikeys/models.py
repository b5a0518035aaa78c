"""API keys: their shape, their state and its constraints. No I/O."""

from __future__ import annotations

import hashlib
import re
import secrets

from django.contrib.postgres.fields import ArrayField
from django.db import models

__all__ = ["NAME", "REVISION_LOCK", "ApiKey", "hash_of", "make_key", "prefix_of"]

# A change of a key holds this advisory lock until COMMIT (the trigger of migration 0001 takes
# it), so revisions become visible in the order of their numbers and a reader never misses one.
REVISION_LOCK = 0x6170696B  # "apik"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_SHAPE = re.compile(r"ek_[0-9a-f]{8}_[0-9a-f]{64}")


class ApiKey(models.Model):
    """One key. The key itself is shown once and stored nowhere; `prefix` is what people call it by.

    `name` is the caller: the actor of histories, the owner of idempotency keys and of a rate limit.
    The keys of a rotation share it. `last_used_at` is coarse. `revision` grows with every change
    but that of `last_used_at`, by a trigger, so that a cache can ask for what is new.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=63, help_text="Who calls; letters, digits and . _ @ -")
    prefix = models.CharField(max_length=11, unique=True)
    sha256 = models.BinaryField(max_length=32, unique=True)
    scopes = ArrayField(models.CharField(max_length=63))
    created_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(db_default=0, unique=True)

    class Meta:
        db_table = "api_keys"
        verbose_name = "API key"
        indexes = [models.Index(fields=["name", "id"], name="api_keys_of_name")]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"


def make_key() -> str:
    """A new key: prefix and 256 random bits, ek_<8 hex>_<64 hex>."""
    return f"ek_{secrets.token_hex(4)}_{secrets.token_hex(32)}"


def prefix_of(key: str) -> str:
    """The part that may be shown: ek_<8 hex>."""
    return key[:11]


def hash_of(key: str) -> bytes | None:
    """SHA-256 of a key; None for what cannot be one.

    A plain hash is enough: slow hashes (Argon2, bcrypt) protect guessable passwords, and 256
    random bits cannot be guessed. Every request pays for the hash."""
    return hashlib.sha256(key.encode()).digest() if _SHAPE.fullmatch(key) else None
